"""Watch: move open jobs forward, whoever submitted them and whatever became of that process.

Does not know when it is called: a schedule, a loop and a command share `poll_once`, which keeps no state of
its own. A job that was never handed over is handed over; one whose trainer is gone is continued, at most
three times; one that gives no sign of life is reported as stuck.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from prefect import task

from agents.errors import PERMANENT, Conflict, UnderstudyError
from agents.schemas import Frozen
from tasks.finetune import hand_over, open_backend, training_job
from tasks.notices import announce, of_job
from tasks.progress import current
from tasks.rounds import move_on
from tasks.storage.jobs import claim_restart, get_job, jobs, mark_stuck, update_job
from tasks.storage.leases import lease_when_free
from tasks.storage.rounds import round_of_job
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Job
from tasks.training.base import TERMINAL, JobState, JobStatus

RESTARTS = 3
SLOW = 10  # a step may take this many times the mean of those before it


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
    stuck: str | None = None

    @property
    def ended(self) -> bool:
        """Tell whether the job will not change any more."""
        return self.status in TERMINAL


def poll_once(store: Store, job: Job) -> tuple[JobReport, JobState]:
    """Poll one job, keep what it says, and tell of what changed, exactly once."""
    state = _poll(store, job)
    return _keep(store, job, state), state


def cancel_job(store: Store, job_id: str) -> JobReport:
    """Stop a job, which ends its round; raise Conflict when it has ended already."""
    with lease_when_free(store, f"submit {job_id}"):
        job, state = get_job(store, job_id), JobState(status="cancelled")
        if job.status in TERMINAL:
            raise Conflict(f"{job_id} is {job.status} already.", "Nothing was cancelled.")
        if job.backend_id is not None:
            backend, asked = open_backend(job.backend), training_job(store, job)
            backend.cancel(asked, job.backend_id)
            state = backend.poll(asked, job.backend_id)
    return _keep(store, job, state)


def _keep(store: Store, job: Job, state: JobState) -> JobReport:
    before, moved = update_job(store, job.id, state)
    if moved and state.status in TERMINAL:
        _tell_ended(store, job, state)
    fresh = get_job(store, job.id)
    silence = stuck_reason(fresh, store.settings.stuck_seconds)
    if silence is not None and fresh.status not in TERMINAL:
        _mark_stuck(store, fresh, silence)
        fresh = get_job(store, job.id)
    seen = state.model_dump(include={"status", "step", "total_steps", "seconds", "trained_tokens", "error"})
    return _report(fresh, before=before, moved=moved, **seen)


def _report(job: Job, **changes: Any) -> JobReport:
    """Return where a job stands by its row, but for what is known better."""
    fields = set(JobReport.model_fields) - {"before", "moved"}
    known = {"before": job.status, "moved": False, **job.model_dump(include=fields)}
    return JobReport.model_validate({**known, **changes})


def _poll(store: Store, job: Job) -> JobState:
    """Return the backend's word on a job, after handing over or continuing one that nobody works on."""
    backend, asked = open_backend(job.backend), training_job(store, job)
    if job.backend_id is not None or job.status in TERMINAL:
        state = backend.poll(asked, job.backend_id or "")
        if not (state.interrupted and claim_restart(store, job, at_most=RESTARTS)):
            return state
    try:
        job = hand_over(store, job.id)
    except PERMANENT as error:
        seen = job.model_dump(include={"step", "total_steps", "trained_tokens", "seconds"})
        return JobState(status="error", error=str(error), **seen)
    return backend.poll(asked, job.backend_id or "")


def _tell_ended(store: Store, job: Job, state: JobState) -> None:
    row = round_of_job(store, job.id)
    if row is not None and row.ended_at is None:
        move_on(store, row)
    if state.status != "completed" or row is None or row.ended_at is not None:
        announce(of_job(get_job(store, job.id)))


def _mark_stuck(store: Store, job: Job, reason: str) -> None:
    if mark_stuck(store, job.id, reason):
        announce(of_job(get_job(store, job.id)))


def stuck_reason(job: Job, patience: float, at: datetime | None = None) -> str | None:
    """Return why an open job is held to be stuck, or None.

    The rule: no new step and no new status for `patience` seconds and for ten times its mean step.
    """
    silent = ((at or datetime.now(UTC)) - datetime.fromisoformat(job.progressed_at)).total_seconds()
    mean = job.seconds / job.step if job.step else 0.0
    if silent <= max(patience, SLOW * mean):
        return None
    return (
        f"{job.status} at step {job.step} of {job.total_steps} without progress for {silent:.0f} s "
        f"(patience {max(patience, SLOW * mean):.0f} s)"
    )


@task(name="poll-jobs")
def poll_jobs(job_id: str | None) -> list[JobReport]:
    """Poll a job, or every open one, once.

    Of several, one whose backend cannot be asked is reported as stuck, and the others are seen to.
    """
    store = open_store()
    if job_id:
        return [poll_once(store, get_job(store, job_id))[0]]
    return [_poll_whatever_happens(store, job) for job in jobs(store, open_only=True)]


def _poll_whatever_happens(store: Store, job: Job) -> JobReport:
    try:
        return poll_once(store, job)[0]
    except UnderstudyError as error:
        _mark_stuck(store, job, f"{job.backend} could not be asked: {error}")
        return _report(get_job(store, job.id))


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
