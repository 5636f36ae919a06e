"""A person's answer to a version that waits for one, given outside Prefect's UI.

Does not know what the gate checked. The registry decides; a run that is suspended for the answer is resumed
so that Prefect's UI shows the end of it.
"""

from __future__ import annotations

import asyncio
import os

from agents.errors import StorageError
from deployments.launch import telling
from tasks.promote import PromotionReport, answer_promotion, promotion_report
from tasks.storage.store import Store
from tasks.storage.tables import Promotion


def answer(store: Store, version: str, *, approve: bool, by: str, note: str | None) -> PromotionReport:
    """Record the answer and resume the run that waits for it, if there is one.

    Raises NotFound when the version does not wait, Conflict when its evaluation is out of date.
    """
    with telling():
        answered = answer_promotion(store, version, approve=approve, by=by, note=note)
    if os.environ.get("PREFECT_API_URL"):
        _resume(answered, approve=approve)
    return promotion_report(store, answered)


def _resume(answered: Promotion, *, approve: bool) -> None:
    import httpx

    from flows.promote import Approval, resume_waiting

    said = Approval(approve=approve, by=answered.decided_by or "", note=answered.note)
    try:
        asyncio.run(resume_waiting(answered.evaluation_id, said))
    except httpx.HTTPError as error:
        raise StorageError(
            f"{answered.version} is {answered.state}, but the Prefect server could not be told: {error!r}.",
            "The run that waits there ends once somebody resumes it; nobody was notified.",
        ) from error
