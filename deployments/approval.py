"""A person's answer to a version that waits for one, given outside Prefect's UI.

Does not know what the gate checked. The registry decides; a run that is suspended for the answer is resumed
so that Prefect's UI shows the end of it.
"""

from __future__ import annotations

import asyncio
import os

from deployments.launch import telling
from tasks.promote import PromotionReport, answer_promotion, promotion_report
from tasks.storage.store import Store


def answer(store: Store, version: str, *, approve: bool, by: str, note: str | None) -> PromotionReport:
    """Record the answer and resume the run that waits for it, if there is one.

    Raises NotFound when the version does not wait, Conflict when its evaluation is out of date.
    """
    with telling():
        answered = answer_promotion(store, version, approve=approve, by=by, note=note)
    if os.environ.get("PREFECT_API_URL"):
        from flows.promote import Approval, resume_waiting

        asyncio.run(resume_waiting(answered.evaluation_id, Approval(approve=approve, by=by, note=note)))
    return promotion_report(store, answered)
