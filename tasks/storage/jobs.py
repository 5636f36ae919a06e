"""Queries on fine-tuning jobs, their loss curves and events.

Does not know any backend: it keeps the states that `tasks/watch.py` reads from them.
"""

from __future__ import annotations

from sqlmodel import Session, col, func, select

from agents.errors import NotFound
from tasks.storage.store import Store, patient
from tasks.storage.tables import Job, JobEvent, Loss, now
from tasks.training.base import TERMINAL, JobState, JobStatus


@patient
def get_job(store: Store, job_id: str) -> Job:
    """Return a job; raise NotFound when there is none of that id."""
    with store.session() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.", "`understudy status` lists the jobs.")
    return job


@patient
def jobs(store: Store, *, persona: str | None = None, open_only: bool = False) -> list[Job]:
    """Return jobs, newest first."""
    query = select(Job).order_by(col(Job.created_at).desc())
    if persona is not None:
        query = query.where(Job.persona == persona)
    if open_only:
        query = query.where(col(Job.status).not_in(TERMINAL))
    with store.session() as session:
        return list(session.exec(query))


@patient
def mark_submitted(store: Store, job_id: str, backend_id: str) -> None:
    """Record under which id the backend runs a job."""
    with store.session(write=True) as session:
        job = session.get_one(Job, job_id)
        job.backend_id = backend_id
        if job.status in TERMINAL:
            job.status, job.error, job.adapter, job.restarts = "queued", None, None, 0
        job.updated_at = job.progressed_at = now()
        session.add(job)


@patient
def update_job(store: Store, job_id: str, state: JobState) -> tuple[JobStatus, bool]:
    """Bring a job's row, losses and events up to a polled state.

    Returns the status before and whether this call moved it: of two processes that see the same
    transition, exactly one is told True.
    """
    with store.session(write=True) as session:
        job = session.exec(select(Job).where(Job.id == job_id).with_for_update()).one()
        before: JobStatus = job.status  # type: ignore[assignment]
        if before in TERMINAL:
            return before, False
        if (before, job.step) != (state.status, state.step):
            job.progressed_at, job.stuck = now(), None
        fields = {"status", "step", "total_steps", "seconds_left", "trained_tokens", "seconds", "error"}
        job.sqlmodel_update(state.model_dump(include=fields))
        job.adapter = store.object_name(state.adapter) if state.adapter else None
        job.updated_at = now()
        session.add(job)
        _append(session, job_id, state)
    return before, before != state.status


@patient
def claim_restart(store: Store, job: Job, *, at_most: int) -> bool:
    """Count one more continuation of an interrupted job; of several that ask at once one is told True."""
    with store.session(write=True) as session:
        fresh = session.get_one(Job, job.id)
        if fresh.status in TERMINAL or fresh.restarts != job.restarts or fresh.restarts >= at_most:
            return False
        fresh.restarts += 1
        fresh.progressed_at = fresh.updated_at = now()
        session.add(fresh)
    return True


@patient
def mark_stuck(store: Store, job_id: str, reason: str) -> bool:
    """Note why a job is held to be stuck; tell whether it was not noted before."""
    with store.session(write=True) as session:
        job = session.get_one(Job, job_id)
        if job.stuck is not None or job.status in TERMINAL:
            return False
        job.stuck = reason
        session.add(job)
    return True


def _append(session: Session, job_id: str, state: JobState) -> None:
    known = {
        (split, step)
        for split, step in session.exec(select(Loss.split, Loss.step).where(Loss.job_id == job_id))
    }
    session.add_all(
        Loss(job_id=job_id, split=point.split, step=point.step, loss=point.loss)
        for point in state.losses
        if (point.split, point.step) not in known
    )
    count = session.exec(select(func.count()).where(JobEvent.job_id == job_id)).one()
    session.add_all(
        JobEvent(job_id=job_id, position=count + offset, at=event.at, message=event.message)
        for offset, event in enumerate(state.events[count:])
    )


@patient
def loss_curve(store: Store, job_id: str) -> list[Loss]:
    """Return a job's losses by step."""
    with store.session() as session:
        return list(
            session.exec(select(Loss).where(Loss.job_id == job_id).order_by(col(Loss.step), col(Loss.split)))
        )


@patient
def job_events(store: Store, job_id: str) -> list[JobEvent]:
    """Return what happened to a job, in order."""
    with store.session() as session:
        return list(
            session.exec(select(JobEvent).where(JobEvent.job_id == job_id).order_by(col(JobEvent.position)))
        )
