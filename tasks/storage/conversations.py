"""Queries on the conversations of a simulation run: drafts of their stage, whose text is JSON.

Does not know how a conversation is written or checked.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col, select

from tasks.storage.drafts import Stage
from tasks.storage.store import Store, patient
from tasks.storage.tables import Draft

STAGE: Stage = "conversation"


@patient
def statuses(store: Store, run: str) -> dict[int, str]:
    """Return the status of every settled conversation of a run by position."""
    with store.session() as session:
        found = session.exec(
            select(Draft.position, Draft.status).where(Draft.run == run, Draft.stage == STAGE)
        )
        return dict(found.all())


@patient
def accepted_texts(store: Store, run: str, positions: Sequence[int]) -> list[str]:
    """Return the texts of the accepted conversations among these positions, in order."""
    with store.session() as session:
        return list(
            session.exec(
                select(Draft.text)
                .where(Draft.run == run, Draft.stage == STAGE, Draft.status == "accepted")
                .where(col(Draft.position).in_(positions))
                .order_by(col(Draft.position))
            )
        )
