"""The overview: where every persona and open job stands, and what happens next.

Does not know how it is shown, nor what a Prefect server has scheduled. Everything is read from the rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from agents.schemas import Frozen, Persona
from tasks.cast import cast
from tasks.rounds import next_step
from tasks.storage import registry, stage
from tasks.storage.jobs import jobs
from tasks.storage.rounds import begin_round_refusal, example_counts, last_round
from tasks.storage.store import Store
from tasks.storage.tables import Job, Round
from tasks.training.base import TERMINAL

ENDED_SHOWN = 5
FOLLOWING = {"round.due": "training", "job.completed": "evaluation"}
WHEN = {"daily": "daily at 03:00 UTC", "weekly": "on Sundays at 03:30 UTC"}  # as prefect.yaml has it


class PersonaStanding(Frozen):
    """Where a persona stands; `next` says what happens next, as sentences."""

    persona: str
    live: str | None
    since: str | None
    versions: int
    waiting: tuple[str, ...]
    examples: int
    new_examples: int
    threshold: int
    schedule: str
    refresh_on: str | None
    round: int | None
    outcome: str | None
    next: tuple[str, ...]


class JobStanding(Frozen):
    """Where a job stands; `stuck` says why it is held to be stuck."""

    job: str
    persona: str
    status: str
    step: int
    total_steps: int
    seconds_left: float | None
    restarts: int
    stuck: str | None
    error: str | None
    updated_at: str


def personas_standing(store: Store) -> list[PersonaStanding]:
    """Return every persona that has examples or versions."""
    counts = example_counts(store)
    named = {*counts, *(version.persona for version in registry.versions(store))}
    known = cast(store)
    return [_standing(store, known[name], counts.get(name, (0, 0))) for name in sorted(named & set(known))]


def jobs_standing(store: Store) -> list[JobStanding]:
    """Return the jobs that have not ended and the latest of those that have, as last seen."""
    found = jobs(store)
    ended = [job for job in found if job.status in TERMINAL][:ENDED_SHOWN]
    return [_job(job) for job in found if job.status not in TERMINAL or job in ended]


def _job(job: Job) -> JobStanding:
    return JobStanding(
        job=job.id,
        persona=job.persona,
        status=job.status,
        step=job.step,
        total_steps=job.total_steps,
        seconds_left=job.seconds_left,
        restarts=job.restarts,
        stuck=job.stuck,
        error=job.error,
        updated_at=job.updated_at,
    )


def _standing(store: Store, persona: Persona, counts: tuple[int, int]) -> PersonaStanding:
    versions = registry.versions(store, persona.name)
    history = stage.appearances(store, persona.name)
    live = stage.live_versions(store).get(persona.name)
    waiting = [row.version for row in stage.promotions(store, persona.name) if row.state == "waiting"]
    latest = last_round(store, persona.name)
    refresh_on = None
    if versions:
        due = datetime.fromisoformat(versions[-1].created_at)
        refresh_on = f"{due + timedelta(days=persona.retraining.refresh_days):%Y-%m-%d}"
    return PersonaStanding(
        persona=persona.name,
        live=live,
        since=history[-1].at if live and history else None,
        versions=len(versions),
        waiting=tuple(waiting),
        examples=counts[0],
        new_examples=counts[1],
        threshold=persona.retraining.threshold,
        schedule=persona.retraining.schedule,
        refresh_on=refresh_on,
        round=latest.number if latest else None,
        outcome=latest.outcome if latest else None,
        next=(*_round_next(store, latest), *_waiting_next(waiting), *_examples_next(store, persona, latest)),
    )


def _round_next(store: Store, row: Round | None) -> list[str]:
    if row is None or row.ended_at is not None:
        return []
    step = next_step(store, row)
    if step is None:
        return [f"Round {row.number} trains as {row.job_id}; then it is evaluated."]
    if isinstance(step, str):
        return [f"Round {row.number} is decided: {step}."]
    following = FOLLOWING.get(step.event, "the gate's decision")
    return [f"Round {row.number} waits for {following} (asked for at {row.told_at or 'no time yet'})."]


def _waiting_next(waiting: list[str]) -> list[str]:
    return [
        f"{version} passed and waits for a person: `understudy approve {version}`." for version in waiting
    ]


def _examples_next(store: Store, persona: Persona, latest: Round | None) -> list[str]:
    name, refusal = persona.name, begin_round_refusal(store, persona)
    said = [refusal or f"A round begins when the schedule looks: {name} has enough new examples."]
    if latest is not None and (latest.outcome or "").startswith("failed"):
        said.append(f"`understudy retrain {name}` tries the examples of round {latest.number} again.")
    if latest is not None and latest.outcome == "cancelled":
        said.append(
            f"Round {latest.number} was cancelled: `understudy resume {latest.job_id}` goes on with it."
        )
    if persona.retraining.schedule != "never":
        said.append(f"Whatever is new begins a round {WHEN[persona.retraining.schedule]}.")
    return said
