"""Queries on the stage: decisions on versions, a person's answers, and who is on stage.

Does not know how a version is judged. Whatever changes who is on stage is one transaction with its reason.
"""

from __future__ import annotations

from itertools import pairwise

from sqlmodel import Session, col, func, select, update

from agents.errors import Conflict, NotFound
from tasks.storage.store import Store, patient
from tasks.storage.tables import Appearance, Live, Promotion, Round, Version, now

ROLLED_BACK = "rolled back"
TAKEN_BACK = "A person rejected it or took it off the stage before, so a person decides."


@patient
def live_versions(store: Store) -> dict[str, str]:
    """Return the name of the live version by persona."""
    with store.session() as session:
        return {row.persona: row.version for row in session.exec(select(Live))}


@patient
def get_promotion(store: Store, evaluation_id: str) -> Promotion | None:
    """Return the decision on an evaluation, or None."""
    with store.session() as session:
        return session.get(Promotion, evaluation_id)


@patient
def decide(store: Store, promotion: Promotion) -> Promotion:
    """Record a decision once and, if it promotes, put the version on stage, in one transaction.

    Returns the decision that stands: a second one on the same evaluation changes nothing, unless it was
    refused and passes by now, with other thresholds. A version that a person took off the stage or rejected
    waits for a person. Raises Conflict when the candidate passed against a version that is no longer the one
    on stage.
    """
    with store.session(write=True) as session:
        standing = session.get(Promotion, promotion.evaluation_id)
        if standing is not None:
            if standing.state != "refused" or promotion.verdict != "pass":
                return standing
            session.delete(standing)
            session.flush()
        if promotion.verdict == "pass":
            _check_baseline(session, promotion)
        if promotion.state == "promoted" and _was_taken_back(session, promotion):
            promotion.state, promotion.note = "waiting", TAKEN_BACK
        session.add(promotion)
        if promotion.state == "promoted":
            _appear(session, promotion.persona, promotion.version, reason="promoted")
    return promotion


@patient
def answer(store: Store, version: str, *, approve: bool, by: str, note: str | None) -> Promotion:
    """Record a person's answer to a decision that waits for one, and put an approved version on stage.

    The same answer by the same person is found, not given again. Raises NotFound when none waits, Conflict
    when what it was judged against is no longer on stage.
    """
    state = "promoted" if approve else "rejected"
    with store.session(write=True) as session:
        asked = select(Promotion).where(Promotion.version == version)
        rows = session.exec(asked.order_by(col(Promotion.created_at).desc())).all()
        row = next((row for row in rows if row.state == "waiting"), rows[0] if rows else None)
        if row is None or (row.state != "waiting" and (row.state, row.decided_by) != (state, by)):
            raise NotFound(
                f"{version} does not wait for approval" + (f": it is {row.state}." if row else "."),
                "`understudy status` lists what waits; what is outdated is judged again.",
            )
        if row.state != "waiting":
            return row
        if approve:
            _check_baseline(session, row)
            _appear(session, row.persona, version, reason="approved", by=by, note=note)
        row.decided_by, row.note, row.decided_at = by, note, now()
        _settle(session, row, state)
    return row


@patient
def put_on_stage(
    store: Store, persona: str, version: str | None, *, by: str | None = None, note: str | None = None
) -> str | None:
    """Put a version (None: the base model) on stage as a rollback; return the one that left."""
    with store.session(write=True) as session:
        live = session.get(Live, persona)
        before = live.version if live else None
        if before != version:
            _appear(session, persona, version, reason=ROLLED_BACK, by=by, note=note)
    return before


@patient
def appearances(store: Store, persona: str) -> list[Appearance]:
    """Return who was on stage, oldest first."""
    with store.session() as session:
        return list(
            session.exec(
                select(Appearance).where(Appearance.persona == persona).order_by(col(Appearance.number))
            )
        )


@patient
def outdated_jobs(store: Store, persona: str) -> list[str]:
    """Return the jobs whose newest decision is out of date, to be judged against who is on stage."""
    newest: dict[str, Promotion] = {}
    for row in promotions(store, persona):
        newest[row.version] = row
    names = [name for name, row in newest.items() if row.state == "outdated"]
    with store.session() as session:
        return [session.get_one(Version, name).job_id for name in names]


def _was_taken_back(session: Session, promotion: Promotion) -> bool:
    """Tell whether a person rejected the version before, or took it off the stage."""
    version = promotion.version
    asked = select(Promotion).where(Promotion.version == version, Promotion.state == "rejected")
    if session.exec(asked.limit(1)).first() is not None:
        return True
    shown = select(Appearance).where(Appearance.persona == promotion.persona)
    history = session.exec(shown.order_by(col(Appearance.number))).all()
    return any(
        before.version == version and after.reason == ROLLED_BACK for before, after in pairwise(history)
    )


def _settle(session: Session, row: Promotion, state: str) -> None:
    """Bring a decision that waited to its end, and what its round says of it."""
    waited = f"{row.state} {row.version}"
    row.state = state
    session.add(row)
    session.exec(
        update(Round)
        .where(col(Round.persona) == row.persona, col(Round.outcome) == waited)
        .values(outcome=f"{state} {row.version}")
    )


def _check_baseline(session: Session, promotion: Promotion) -> None:
    live = session.get(Live, promotion.persona)
    on_stage = live.version if live else None
    if on_stage not in (promotion.baseline, promotion.version):
        raise Conflict(
            f"{promotion.version} was judged against {promotion.baseline or 'the base model'}, but "
            f"{on_stage or 'the base model'} is on stage now.",
            f"`understudy evaluate {promotion.persona}` judges it against that.",
        )


def _appear(
    session: Session,
    persona: str,
    version: str | None,
    *,
    reason: str,
    by: str | None = None,
    note: str | None = None,
) -> None:
    """Change who is on stage; what waited to be compared with another is out of date with that."""
    live = session.get(Live, persona)
    if version is None:
        if live is not None:
            session.delete(live)
    else:
        session.merge(Live(persona=persona, version=version, since=now()))
    waiting = select(Promotion).where(Promotion.persona == persona, Promotion.state == "waiting")
    for row in session.exec(waiting).all():
        if version not in (row.version, row.baseline):
            _settle(session, row, "outdated")
    count = session.exec(select(func.count()).where(Appearance.persona == persona)).one()
    session.add(
        Appearance(persona=persona, number=count + 1, version=version, reason=reason, by=by, note=note)
    )


@patient
def promotions(store: Store, persona: str) -> list[Promotion]:
    """Return the decisions on a persona's versions, oldest first."""
    with store.session() as session:
        return list(
            session.exec(
                select(Promotion).where(Promotion.persona == persona).order_by(col(Promotion.created_at))
            )
        )
