"""Watch: move open jobs and rounds forward, once on a schedule, or follow jobs until they have ended.

Does not know any backend. It reads the rows anew each time, so it may die and be missed at any moment.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.runtime import flow_run

from flows.reports import table, tracked
from tasks.events import is_heard
from tasks.homes import tell_home
from tasks.notices import retell_notices
from tasks.rounds import reconcile_rounds
from tasks.specs import WatchSpec
from tasks.watch import JobReport, follow_job, poll_jobs


def _run_name() -> str:
    spec = WatchSpec.model_validate(flow_run.parameters["spec"])
    return f"watch-{spec.job or 'all'}"


@flow(name="watch", flow_run_name=_run_name)
async def watch(spec: WatchSpec) -> list[JobReport]:
    """Poll jobs; every transition is kept, and told as an event, exactly once."""
    reports = await asyncio.to_thread(poll_jobs, spec.job)
    if spec.follow:
        reports = list(await asyncio.gather(*(_follow(report, spec.interval) for report in reports)))
    elif spec.job is None:
        await tell_home()
        said = await asyncio.to_thread(reconcile_rounds)
        await _tell_rounds(said + (await retell_notices() if is_heard() else []))
    if reports:
        await table(
            "jobs",
            [
                report.model_dump(include={"id", "persona", "status", "step", "error", "stuck"})
                for report in reports
            ],
            "Jobs as they were last seen",
        )
    return reports


async def _follow(report: JobReport, interval: float) -> JobReport:
    if report.ended:
        return report
    async with tracked(f"{report.id} steps", 0):
        return await follow_job(report.id, interval)


async def _tell_rounds(said: list[str]) -> None:
    if said:
        await table(
            "rounds",
            [{"what": sentence} for sentence in said],
            "Rounds that moved on, and what was told again",
        )
