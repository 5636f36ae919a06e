"""Queries on calls: the database behind the ledger.

Does not know what a call was for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlmodel import col, func, select

from agents.ledger import Call as FinishedCall
from agents.schemas import Frozen
from tasks.storage.store import Store, patient
from tasks.storage.tables import Call, Draft, now


class CallTotals(Frozen):
    """What the calls of the ledger took together; `cost` is in US dollars, without those `unpriced`."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float
    unpriced: int = 0


class Habit(Frozen):
    """What a stage takes with a model: asks for a text, and tokens of one ask, on average."""

    asks: float
    prompt_tokens: float
    completion_tokens: float


class DatabaseLedger:
    """A ledger whose rows live in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def find(self, key: str) -> str | None:
        """Return the recorded response of a call, or None."""
        return await self.store.gathering("find-calls", partial(responses, self.store)).ask(key)

    async def record(self, call: FinishedCall) -> None:
        """Commit a finished call; one that is there already stays as it was."""
        fields = call.model_dump(exclude={"usage"})
        await self.store.add_soon(Call, {**fields, **call.usage.model_dump(), "created_at": now()})


@patient
def responses(store: Store, keys: Sequence[str]) -> list[str | None]:
    """Return the recorded response of each call, None where there is none."""
    with store.session() as session:
        found = dict(session.exec(select(Call.key, Call.response).where(col(Call.key).in_(keys))).all())
    return [found.get(key) for key in keys]


@patient
def call_totals(store: Store) -> CallTotals:
    """Add up all calls of the ledger."""
    with store.session() as session:
        row = session.exec(
            select(
                func.count(),
                func.coalesce(func.sum(Call.prompt_tokens), 0),
                func.coalesce(func.sum(Call.completion_tokens), 0),
                func.coalesce(func.sum(Call.seconds), 0.0),
            ).select_from(Call)
        ).one()
        cost, priced = session.exec(
            select(func.coalesce(func.sum(Call.cost), 0.0), func.count(col(Call.cost)))
        ).one()
    return CallTotals(
        calls=row[0],
        prompt_tokens=row[1],
        completion_tokens=row[2],
        seconds=row[3],
        cost=float(cost or 0.0),
        unpriced=row[0] - priced,
    )


@patient
def call_habit(store: Store, version: str, stage: str, model: str) -> Habit | None:
    """Return what the calls of a stage's version with a model took; None when there were none."""
    with store.session() as session:
        read, written = session.exec(
            select(func.avg(Call.prompt_tokens), func.avg(Call.completion_tokens)).where(
                Call.stage == version, Call.model == model
            )
        ).one()
        asks = session.exec(
            select(func.avg(Draft.attempts)).where(
                Draft.stage == stage, Draft.model == model, Draft.status != "failed"
            )
        ).one()
    if read is None or written is None:
        return None
    return Habit(asks=float(asks or 1.0), prompt_tokens=float(read), completion_tokens=float(written))
