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
        asyncio.run(_resume(answered.evaluation_id, {"approve": approve, "by": by, "note": note}))
    return promotion_report(store, answered)


async def _resume(evaluation: str, said: dict[str, object]) -> None:
    from prefect import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
    from prefect.client.schemas.objects import StateType

    suspended = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.PAUSED.value]}}})
    named = FlowFilter.model_validate({"name": {"any_": ["promote"]}})
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_filter=named, flow_run_filter=suspended):
            if run.parameters.get("spec", {}).get("evaluation") == evaluation:
                await client.resume_flow_run(run.id, run_input=said)
