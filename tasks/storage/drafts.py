"""Queries on generation runs and the drafts of their stages.

Does not know how a draft is written or checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from sqlmodel import col, delete, func, select

from agents.errors import Conflict
from agents.schemas import Slug
from tasks.storage.store import Store, patient
from tasks.storage.tables import Draft, Run

Stage = Literal["idea", "document", "response", "conversation"]
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
        changed = [f"{key} {was.get(key)!r} → {asked[key]!r}" for key in asked if was.get(key) != asked[key]]
        raise Conflict(
            f"The run {name!r} exists with other parameters ({', '.join(changed)}).",
            "Choose another name, or repeat it with the parameters it had.",
        )
    return run


@patient
def drafts(store: Store, run: str, stage: Stage) -> dict[int, Draft]:
    """Return the settled drafts of a stage by position, in order."""
    with store.session() as session:
        rows = session.exec(
            select(Draft).where(Draft.run == run, Draft.stage == stage).order_by(col(Draft.position))
        )
        return {row.position: row for row in rows}


@patient
def accepted_positions(store: Store, run: str, stage: Stage) -> list[int]:
    """Return the positions whose draft of the stage was accepted, in order."""
    with store.session() as session:
        return list(
            session.exec(
                select(Draft.position)
                .where(Draft.run == run, Draft.stage == stage, Draft.status == "accepted")
                .order_by(col(Draft.position))
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
