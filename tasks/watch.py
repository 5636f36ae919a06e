"""Move open jobs forward: read their state from the backend and keep it.

Does not know when it is called: a schedule, a loop and a command share `poll_once`.
"""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.events import emit_event

from agents.schemas import Frozen
from tasks.finetune import open_backend, training_job
from tasks.progress import current
from tasks.storage.jobs import get_job, jobs, update_job
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Job
from tasks.training.base import TERMINAL, JobState, JobStatus


class JobReport(Frozen):
    """Where a job stands; `moved` says that this poll brought it from `before` to `status`."""

    id: str
    persona: str
    before: JobStatus
    status: JobStatus
    moved: bool
    step: int
    total_steps: int
    seconds: float
    trained_tokens: int
    error: str | None

    @property
    def ended(self) -> bool:
        """Tell whether the job will not change any more."""
        return self.status in TERMINAL


def poll_once(store: Store, job: Job) -> tuple[JobReport, JobState]:
    """Poll one job, keep what it says, and emit one event if this poll saw it end."""
    state = open_backend(job.backend).poll(training_job(store, job), job.backend_id or "")
    before, moved = update_job(store, job.id, state)
    report = JobReport(
        id=job.id,
        persona=job.persona,
        before=before,
        moved=moved,
        status=state.status,
        step=state.step,
        total_steps=state.total_steps,
        seconds=state.seconds,
        trained_tokens=state.trained_tokens,
        error=state.error,
    )
    if moved and report.ended:
        emit_event(
            event=f"understudy.job.{report.status}",
            resource={"prefect.resource.id": f"understudy.job.{job.id}", "understudy.persona": job.persona},
            payload={"job": job.id, "persona": job.persona, "error": state.error},
        )
    return report, state


@task(name="poll-jobs")
def poll_jobs(job_id: str | None) -> list[JobReport]:
    """Poll a job, or every open one, once."""
    store = open_store()
    found = [get_job(store, job_id)] if job_id else jobs(store, open_only=True)
    return [poll_once(store, job)[0] for job in found]


@task(name="follow-job", task_run_name="follow[{job_id}]")
async def follow_job(job_id: str, interval: float) -> JobReport:
    """Poll a job until it has ended, telling the progress at hand each time."""
    store = open_store()
    while True:
        report, state = await asyncio.to_thread(poll_once, store, get_job(store, job_id))
        progress = current.get()
        if progress is not None and state.total_steps:
            losses = [point.loss for point in state.losses if point.split == "train"]
            progress.note = f"loss {losses[-1]:.3f}" if losses else state.status
            progress.reach(state.step, total=state.total_steps, seconds_left=state.seconds_left)
        if report.ended:
            return report
        await asyncio.sleep(interval)
