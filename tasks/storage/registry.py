"""Queries on evaluations, versions, promotions, and which version is live.

Does not know how a version is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col, select

from agents.errors import NotFound
from tasks.storage.store import Store, patient
from tasks.storage.tables import Evaluation, Live, Match, Promotion, Version, now


@patient
def get_evaluation(store: Store, evaluation_id: str) -> Evaluation | None:
    """Return an evaluation, or None when it has not been finished."""
    with store.session() as session:
        return session.get(Evaluation, evaluation_id)


@patient
def latest_evaluation(store: Store, persona: str) -> Evaluation:
    """Return the newest evaluation of a persona; raise NotFound when there is none."""
    with store.session() as session:
        row = session.exec(
            select(Evaluation)
            .where(Evaluation.persona == persona)
            .order_by(col(Evaluation.created_at).desc())
            .limit(1)
        ).first()
    if row is None:
        raise NotFound(
            f"{persona} has no evaluation yet.", f"`understudy evaluate {persona}` judges its newest job."
        )
    return row


@patient
def add_evaluation(store: Store, evaluation: Evaluation, found: Sequence[Match]) -> None:
    """Keep an evaluation and its matches in one transaction; one that is there stays as it was."""
    with store.session(write=True) as session:
        if session.get(Evaluation, evaluation.id) is None:
            session.add(evaluation)
            session.add_all(found)


@patient
def matches(store: Store, evaluation_id: str) -> list[Match]:
    """Return the matches of an evaluation in the order of its prompts."""
    with store.session() as session:
        return list(
            session.exec(
                select(Match).where(Match.evaluation_id == evaluation_id).order_by(col(Match.position))
            )
        )


@patient
def versions(store: Store, persona: str | None = None) -> list[Version]:
    """Return versions, oldest first."""
    query = select(Version).order_by(col(Version.created_at), col(Version.name))
    if persona is not None:
        query = query.where(Version.persona == persona)
    with store.session() as session:
        return list(session.exec(query))


@patient
def get_version(store: Store, name: str) -> Version:
    """Return a version by name (`jamie-0.1.0`); raise NotFound with the names there are."""
    with store.session() as session:
        row = session.get(Version, name)
        known = [] if row else list(session.exec(select(Version.name).order_by(col(Version.name))))
    if row is None:
        raise NotFound(f"There is no version {name!r}.", f"Known: {', '.join(known) or 'none yet'}.")
    return row


@patient
def version_of_job(store: Store, job_id: str) -> Version | None:
    """Return the version that a job became, or None."""
    with store.session() as session:
        return session.exec(select(Version).where(Version.job_id == job_id)).first()


@patient
def live_versions(store: Store) -> dict[str, str]:
    """Return the name of the live version by persona."""
    with store.session() as session:
        return {row.persona: row.version for row in session.exec(select(Live))}


@patient
def decide(store: Store, promotion: Promotion) -> Promotion:
    """Record a decision once and, if it passed, put the version on stage, in one transaction.

    Returns the decision that stands: a second decision on the same evaluation changes nothing.
    """
    with store.session(write=True) as session:
        standing = session.get(Promotion, promotion.evaluation_id)
        if standing is not None:
            return standing
        session.add(promotion)
        if promotion.verdict == "pass":
            live = session.get(Live, promotion.persona) or Live(
                persona=promotion.persona, version=promotion.version
            )
            live.version, live.since = promotion.version, now()
            session.add(live)
    return promotion


@patient
def promotions(store: Store, persona: str) -> list[Promotion]:
    """Return the decisions on a persona's versions, oldest first."""
    with store.session() as session:
        return list(
            session.exec(
                select(Promotion).where(Promotion.persona == persona).order_by(col(Promotion.created_at))
            )
        )
