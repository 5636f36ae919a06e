"""Queries on generation runs and the drafts of their stages.

Does not know how a draft is written or checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import sqlalchemy as sql
from sqlmodel import col, delete, func, select

from agents.errors import Conflict
from agents.schemas import Slug
from tasks.storage.store import Store, patient
from tasks.storage.tables import Draft, Run

Stage = Literal["idea", "document", "response", "conversation", "question", "chosen", "rejected"]
PAGE = 500  # positions in memory at a time
DraftStatus = Literal["accepted", "dropped", "failed"]


@patient
def claim_run(store: Store, name: Slug, persona: str, spec: str) -> Run:
    """Return the run of that name, made now if it is new or came to nothing; failures are forgotten.

    Raises Conflict when the name belongs to a run that was asked for differently.
    """
    with store.session(write=True) as session:
        session.exec(delete(Draft).where(col(Draft.run) == name, col(Draft.status) == "failed"))
        run = session.get(Run, name) or Run(name=name, persona=persona, spec=spec)
        if session.exec(select(Draft.position).where(Draft.run == name).limit(1)).first() is None:
            run.persona, run.spec = persona, spec
        session.add(run)
    if run.spec != spec:
        was, asked = json.loads(run.spec), json.loads(spec)
        keys = [key for key in {**asked, **was} if was.get(key) != asked.get(key)]
        changed = [f"{key} {was.get(key)!r} → {asked.get(key)!r}" for key in keys]
        raise Conflict(
            f"The run {name!r} exists with other parameters ({', '.join(changed)}).",
            "Choose another name, or repeat it with the parameters it had.",
        )
    return run


@patient
def get_run(store: Store, name: str) -> Run | None:
    """Return a run, or None."""
    with store.session() as session:
        return session.get(Run, name)


@patient
def runs_of(store: Store, persona: str, *, until: str) -> list[Run]:
    """Return the runs for a persona that began before a time, by name."""
    with store.session() as session:
        asked = select(Run).where(Run.persona == persona, Run.created_at <= until)
        return list(session.exec(asked.order_by(col(Run.name))))


@patient
def drafts(store: Store, run: str, stage: Stage) -> dict[int, Draft]:
    """Return the settled drafts of a stage by position, in order."""
    with store.session() as session:
        rows = session.exec(
            select(Draft).where(Draft.run == run, Draft.stage == stage).order_by(col(Draft.position))
        )
        return {row.position: row for row in rows}


class Piece(NamedTuple):
    """What a stage came to at one position, as plain columns."""

    stage: str
    position: int
    status: str
    text: str
    model: str
    attempts: int
    reasons: str  # JSON
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # None where no price is known
    seconds: float
    created_at: str


Pieces = dict[str, Piece]  # by stage


@patient
def span(store: Store, run: str) -> tuple[int, int]:
    """Return the first and last position of a run; of an empty one 0 and -1."""
    with store.session() as session:
        lowest, highest = func.min(Draft.position), func.max(Draft.position)
        first, last = session.exec(select(lowest, highest).where(Draft.run == run)).one()
    return (first, last) if first is not None else (0, -1)


@patient
def pieces(store: Store, run: str, first: int, last: int) -> list[Piece]:
    """Return the drafts of all stages from one position to another."""
    columns = [getattr(Draft, name) for name in Piece._fields]
    with store.session() as session:
        stages = col(Draft.stage).in_(get_args(Stage))  # so that the primary key finds them
        rows = session.execute(
            sql.select(*columns).where(
                col(Draft.run) == run, stages, col(Draft.position).between(first, last)
            )
        )
        return [Piece(*row) for row in rows]


@patient
def accepted_positions(store: Store, run: str, stage: Stage, *, after: int, limit: int) -> list[int]:
    """Return the first positions after one whose draft of the stage was accepted, in order."""
    with store.session() as session:
        return list(
            session.exec(
                select(Draft.position)
                .where(Draft.run == run, Draft.stage == stage, Draft.status == "accepted")
                .where(col(Draft.position) > after)
                .order_by(col(Draft.position))
                .limit(limit)
            )
        )


@patient
def accepted_texts(store: Store, run: str, stage: Stage, positions: Sequence[int]) -> dict[int, str]:
    """Return by position the accepted texts of a stage at the positions, given in order."""
    if not positions:
        return {}
    asked = set(positions)
    with store.session() as session:
        found = session.exec(
            select(Draft.position, Draft.text).where(
                Draft.run == run,
                Draft.stage == stage,
                Draft.status == "accepted",
                col(Draft.position).between(positions[0], positions[-1]),
            )
        )
        return {position: text for position, text in found if position in asked}


@patient
def spent_on(store: Store, run: str) -> float:
    """Return what the settled drafts of a run have cost, in US dollars, as far as prices were known."""
    with store.session() as session:
        spent = session.exec(select(func.coalesce(func.sum(Draft.cost), 0.0)).where(Draft.run == run)).one()
    return float(spent or 0.0)


@patient
def texts_at(store: Store, run: str, stage: Stage, positions: Sequence[int]) -> dict[int, str]:
    """Return by position the accepted texts of a stage at these positions, wherever they lie."""
    with store.session() as session:
        return dict(
            session.exec(
                select(Draft.position, Draft.text).where(
                    Draft.run == run,
                    Draft.stage == stage,
                    Draft.status == "accepted",
                    col(Draft.position).in_(positions),
                )
            ).all()
        )


@patient
def missing(store: Store, run: str, stage: Stage, positions: Sequence[int]) -> list[int]:
    """Return which of the positions, given in order, have no settled draft of the stage yet."""
    if not positions:
        return []
    with store.session() as session:
        settled = set(
            session.exec(
                select(Draft.position).where(
                    Draft.run == run,
                    Draft.stage == stage,
                    col(Draft.position).between(positions[0], positions[-1]),
                )
            )
        )
    return [position for position in positions if position not in settled]
