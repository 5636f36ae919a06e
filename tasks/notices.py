"""Notices: what people are told of, found in the rows; what the Prefect server never heard is told again.

Does not know who listens. A notice has the same id whenever it is told, so the server's own events say
whether it arrived: what was lost with a process or a server is told within the hour that both are back.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect import task

from agents.schemas import Frozen
from tasks.evaluation.gate import Decision
from tasks.events import emit
from tasks.storage.jobs import get_job
from tasks.storage.news import news_since
from tasks.storage.stage import ROLLED_BACK
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Appearance, Job, Promotion, Round
from tasks.training.base import TERMINAL

REMEMBERED = timedelta(days=1)
GRACE = timedelta(seconds=60)  # what is younger may be on its way
PAGE = 50  # events that the server returns at once


class Notice(Frozen):
    """Something to tell; `at` is when it came to be (ISO 8601, UTC), and part of what it is known by."""

    event: str
    name: str
    persona: str
    at: str
    payload: dict[str, Any]

    @property
    def id(self) -> UUID:
        """Return the id that its event has whenever it is told."""
        return uuid5(NAMESPACE_URL, f"understudy:{self.event}:{self.name}:{self.at}")


def announce(notice: Notice | None) -> None:
    """Tell of something."""
    if notice is not None:
        facts = {"persona": notice.persona, **notice.payload}
        emit(notice.event, notice.name, facts, identity=notice.id)


def of_promotion(row: Promotion) -> Notice | None:
    """Return what to tell of a decision; nothing of one that is out of date."""
    if row.state == "outdated":
        return None
    return Notice(
        event=f"version.{row.state}",
        name=row.version,
        persona=row.persona,
        at=row.decided_at or row.created_at,
        payload={
            "version": row.version,
            "verdict": row.verdict,
            "evaluation": row.evaluation_id,
            "reasons": "; ".join(Decision.model_validate_json(row.decision).reasons),
            "by": row.decided_by,
            "note": row.note,
        },
    )


def of_appearance(row: Appearance) -> Notice | None:
    """Return what to tell of a rollback; who came on stage by a decision is told with that."""
    if row.reason != ROLLED_BACK:
        return None
    payload = {"version": row.version, "by": row.by, "note": row.note}
    name = row.version or row.persona
    return Notice(event="version.rolled-back", name=name, persona=row.persona, at=row.at, payload=payload)


def of_job(job: Job) -> Notice | None:
    """Return what to tell of a job that has ended or is stuck."""
    ended = job.status in TERMINAL
    if not (ended or job.stuck):
        return None
    return Notice(
        event=f"job.{job.status if ended else 'stuck'}",
        name=job.id,
        persona=job.persona,
        at=job.updated_at if ended else job.progressed_at,
        payload={"job": job.id, "error": job.stuck if not ended else job.error or job.status},
    )


def of_round(store: Store, row: Round) -> Notice | None:
    """Return what to tell of a round that failed; of others their versions tell, or the job that failed."""
    outcome = row.outcome or ""
    if not outcome.startswith("failed") or row.ended_at is None:
        return None
    if row.job_id is not None and get_job(store, row.job_id).status in ("error", "cancelled"):
        return None
    name, error = f"{row.persona}-{row.number}", outcome.removeprefix("failed: ")
    return Notice(
        event="round.failed", name=name, persona=row.persona, at=row.ended_at, payload={"error": error}
    )


def notices(store: Store, now: datetime) -> Iterator[Notice]:
    """Yield what should have been heard by now of what happened in the last day."""
    news = news_since(store, (now - REMEMBERED).isoformat(timespec="milliseconds"))
    found = (
        *map(of_promotion, news.promotions),
        *map(of_appearance, news.appearances),
        *(of_job(job) for job in news.jobs if job.status != "completed"),
        *(of_round(store, row) for row in news.rounds),
    )
    due = (now - GRACE).isoformat(timespec="milliseconds")
    yield from (notice for notice in found if notice is not None and notice.at <= due)


@task(name="retell-notices")
async def retell_notices() -> list[str]:
    """Tell again what the Prefect server never heard, and return it as sentences."""
    now = datetime.now(UTC)
    due = list(notices(open_store(), now))
    heard = await _heard([notice.id for notice in due], now - REMEMBERED)
    lost = [notice for notice in due if notice.id not in heard]
    for notice in lost:
        announce(notice)
    return [f"Told again: {notice.name} {notice.event}." for notice in lost]


async def _heard(ids: list[UUID], since: datetime) -> set[UUID]:
    """Return which events the server has."""
    from prefect.client.orchestration import get_client

    heard: set[UUID] = set()
    async with get_client() as client:
        for start in range(0, len(ids), PAGE):
            part = list(map(str, ids[start : start + PAGE]))
            asked = {"id": {"id": part}, "occurred": {"since": since.isoformat()}}
            answer = await client.request("POST", "/events/filter", json={"filter": asked, "limit": PAGE})
            heard |= {UUID(event["id"]) for event in answer.json()["events"]}
    return heard
