"""Watch: move open jobs forward, once on a schedule or until they have ended.

Does not know any backend.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from flows.reports import table, tracked
from tasks.specs import WatchSpec
from tasks.watch import JobReport, follow_job, poll_jobs


@flow(name="watch", flow_run_name="watch-{spec.job}")
async def watch(spec: WatchSpec) -> list[JobReport]:
    """Poll jobs; every transition is kept, and told as an event, exactly once."""
    reports = await asyncio.to_thread(poll_jobs, spec.job)
    if spec.follow:
        reports = [report if report.ended else await _follow(report.id, spec.interval) for report in reports]
    if reports:
        await table(
            "jobs",
            [report.model_dump(include={"id", "persona", "status", "step", "error"}) for report in reports],
            "Jobs as they were last seen",
        )
    return reports


async def _follow(job_id: str, interval: float) -> JobReport:
    async with tracked(f"{job_id} steps", 0):
        return await follow_job(job_id, interval)
