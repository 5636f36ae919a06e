"""Promote: the gate decides, a person too where the persona asks for one, and only then it goes on stage.

Does not know how a candidate was measured.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

from prefect import flow, get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.reports import table
from flows.texts import promotion_text
from tasks.promote import PromotionReport, promote_version, record_answer
from tasks.specs import PromoteSpec

PATIENCE = timedelta(days=30)


class Approval(RunInput):
    """What a person says to a version that passed the gate."""

    approve: bool = Field(description="put the version on stage")
    by: str = Field(default="somebody in Prefect's UI", description="your name")
    note: str | None = Field(default=None, description="why")


@flow(name="promote", flow_run_name="promote-{spec.persona}", persist_result=True)
async def promote(spec: PromoteSpec) -> PromotionReport:
    """Decide on an evaluation, register its version, and say why.

    A run of a deployment waits, without a process, for a person's answer in Prefect's UI; elsewhere
    `understudy approve` and `understudy reject` give it. Whichever comes first stands.
    """
    report = await asyncio.to_thread(promote_version, spec)
    if report.state == "waiting" and _can_suspend():
        asked = Approval.with_initial_data(description=promotion_text(report), approve=False)
        said = await _person(asked)
        report = await asyncio.to_thread(record_answer, report, said.approve, said.by, said.note)
        await resume_waiting(report.evaluation, said)
    await table(
        f"gate-{report.persona}",
        [check.model_dump() for check in report.decision.checks],
        f"{report.version}: {report.decision.verdict}, {report.state}; live is {report.live or 'none'}",
    )
    return report


async def _person(asked: type[Approval]) -> Approval:
    """Suspend the run until a person answers; it then runs again from its start and finds the answer."""
    patience = int(PATIENCE.total_seconds())
    waiting: Any = suspend_flow_run(wait_for_input=asked, timeout=patience, key="approval")
    return cast("Approval", await waiting)


async def resume_waiting(evaluation: str, said: Approval) -> None:
    """Resume every run that is suspended for an answer on the evaluation, which has been given.

    Usually that is one; a step that is asked for again after a crash may have begun another.
    """
    suspended = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.PAUSED.value]}}})
    named = FlowFilter.model_validate({"name": {"any_": ["promote"]}})
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_filter=named, flow_run_filter=suspended):
            if run.parameters.get("spec", {}).get("evaluation") == evaluation:
                await client.resume_flow_run(run.id, run_input=said.model_dump())


def _can_suspend() -> bool:
    """Tell whether this is a deployment's own run; another's subflow cannot be suspended."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is not None and run.deployment_id is not None and run.parent_task_run_id is None
