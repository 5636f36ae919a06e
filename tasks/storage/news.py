"""Queries on what has happened lately that people are told of.

Does not know how they are told.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlmodel import col, or_, select

from tasks.storage.store import Store, patient
from tasks.storage.tables import Appearance, Job, Promotion, Round


class News(NamedTuple):
    """Rows that changed, oldest first."""

    promotions: list[Promotion]
    appearances: list[Appearance]
    jobs: list[Job]
    rounds: list[Round]


@patient
def news_since(store: Store, at: str) -> News:
    """Return what was decided, shown, ended or got stuck since then (ISO 8601, UTC)."""
    decided = or_(col(Promotion.created_at) >= at, col(Promotion.decided_at) >= at)
    shown = select(Appearance).where(Appearance.at >= at).order_by(col(Appearance.at))
    ended = select(Round).where(col(Round.ended_at) >= at).order_by(col(Round.ended_at))
    moved = select(Job).where(Job.updated_at >= at).order_by(col(Job.updated_at))
    with store.session() as session:
        return News(
            promotions=list(
                session.exec(select(Promotion).where(decided).order_by(col(Promotion.created_at)))
            ),
            appearances=list(session.exec(shown)),
            jobs=list(session.exec(moved)),
            rounds=list(session.exec(ended)),
        )
