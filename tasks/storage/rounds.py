"""Queries on rounds of training: what is new, begin one, what became of it.

Does not know when one is due: `tasks/training/rounds.py` decides.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlmodel import Session, col, func, select, update

from agents.errors import NotFound
from agents.schemas import Persona
from tasks.storage.store import Store, patient
from tasks.storage.tables import Example, Round, Version, now
from tasks.training.rounds import LastRound, Reason, Standing, why_not


@patient
def standing(store: Store, persona: str) -> Standing:
    """Return what decides whether a persona's next round begins."""
    with store.session() as session:
        return _standing(session, persona)


@patient
def begin_round(
    store: Store, persona: Persona, reason: Reason, judge: str | None = None
) -> tuple[Round | None, str | None]:
    """Begin a round if one is due, taking up every example that is new; otherwise say why not.

    In one transaction: of any number of processes that ask at once, one begins the round.
    """
    with store.session(write=True) as session:
        found = _standing(session, persona.name)
        refusal = why_not(persona, found, reason)
        if refusal is not None:
            return None, refusal
        row = Round(
            persona=persona.name,
            number=found.last.number + 1 if found.last else 1,
            reason=reason,
            new_examples=found.new_examples,
            seed=(found.last.seed if found.last else 0) + (reason == "refresh"),
            design=persona.design,
            base_model=persona.base_model,
            judge=judge,
        )
        session.add(row)
        session.exec(
            update(Example)
            .where(col(Example.persona) == persona.name, col(Example.round).is_(None))
            .values(round=row.number)
        )
    return row, None


@patient
def begin_round_refusal(store: Store, persona: Persona) -> str | None:
    """Return why no round begins by the persona's threshold now, or None when one is due."""
    return why_not(persona, standing(store, persona.name), "threshold")


@patient
def rounds(store: Store, persona: str | None = None, *, open_only: bool = False) -> list[Round]:
    """Return rounds, oldest first."""
    query = select(Round).order_by(col(Round.created_at), col(Round.number))
    if persona is not None:
        query = query.where(Round.persona == persona)
    if open_only:
        query = query.where(col(Round.ended_at).is_(None))
    with store.session() as session:
        return list(session.exec(query))


@patient
def get_round(store: Store, persona: str, number: int) -> Round:
    """Return a round; raise NotFound when there is none of that number."""
    with store.session() as session:
        row = session.get(Round, (persona, number))
    if row is None:
        raise NotFound(f"{persona} has no round {number}.", "`understudy status` lists the newest.")
    return row


@patient
def last_round(store: Store, persona: str) -> Round | None:
    """Return the newest round of a persona, or None."""
    with store.session() as session:
        return _last(session, persona)


@patient
def round_of_job(store: Store, job_id: str) -> Round | None:
    """Return the newest round that a job was submitted for, or None."""
    with store.session() as session:
        return session.exec(
            select(Round).where(Round.job_id == job_id).order_by(col(Round.number).desc()).limit(1)
        ).first()


@patient
def set_job(store: Store, persona: str, number: int, job_id: str) -> None:
    """Record which job a round became."""
    with store.session(write=True) as session:
        row = session.get_one(Round, (persona, number))
        if row.ended_at is None:
            row.job_id = job_id
            session.add(row)


@patient
def appoint_judge(store: Store, row: Round, judge: str) -> None:
    """Record who judges a round."""
    with store.session(write=True) as session:
        fresh = session.get_one(Round, (row.persona, row.number))
        fresh.judge = judge
        session.add(fresh)


@patient
def mark_told(store: Store, row: Round, step: str, *, again_after: float) -> int:
    """Note that a round's next step is asked for, and return for which time; 0 when somebody else just did.

    The same step is asked for again when it was not taken for `again_after` seconds.
    """
    with store.session(write=True) as session:
        fresh = session.get_one(Round, (row.persona, row.number))
        again = fresh.told == step
        if fresh.ended_at is not None:
            return 0
        if again and _age(fresh.told_at or fresh.created_at) < again_after:
            return 0
        fresh.told, fresh.told_at, fresh.asked = step, now(), fresh.asked + 1 if again else 1
        session.add(fresh)
        return fresh.asked


@patient
def end_round(store: Store, row: Round, outcome: str) -> bool:
    """Close a round with what became of it; tell whether this call did."""
    with store.session(write=True) as session:
        fresh = session.get_one(Round, (row.persona, row.number))
        if fresh.ended_at is not None:
            return False
        fresh.outcome, fresh.ended_at = outcome, now()
        session.add(fresh)
    return True


@patient
def reopen_round(store: Store, job_id: str) -> None:
    """Go on with the round of a job that failed or was cancelled, if none has begun since."""
    with store.session(write=True) as session:
        row = session.exec(
            select(Round).where(Round.job_id == job_id).order_by(col(Round.number).desc())
        ).first()
        if row is None or row != _last(session, row.persona):
            return
        if row.outcome == "cancelled" or (row.outcome or "").startswith("failed"):
            row.outcome = row.ended_at = row.told = None
            session.add(row)


@patient
def example_counts(store: Store) -> dict[str, tuple[int, int]]:
    """Return (all, new) examples by persona."""
    with store.session() as session:
        rows = session.exec(
            select(Example.persona, func.count(), func.count(col(Example.round))).group_by(Example.persona)
        )
        return {persona: (total, total - taken) for persona, total, taken in rows}


def _standing(session: Session, persona: str) -> Standing:
    last = _last(session, persona)
    newest = session.exec(
        select(Version).where(Version.persona == persona).order_by(col(Version.created_at).desc()).limit(1)
    ).first()
    new = session.exec(
        select(func.count()).where(Example.persona == persona, col(Example.round).is_(None))
    ).one()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="milliseconds")
    today = session.exec(
        select(func.count()).where(Round.persona == persona, col(Round.created_at) > yesterday)
    ).one()
    return Standing(
        new_examples=new,
        last=None if last is None else _remembered(last),
        begun_today=today,
        version=newest.name if newest else None,
        version_at=datetime.fromisoformat(newest.created_at) if newest else None,
    )


def _last(session: Session, persona: str) -> Round | None:
    return session.exec(
        select(Round).where(Round.persona == persona).order_by(col(Round.number).desc()).limit(1)
    ).first()


def _remembered(row: Round) -> LastRound:
    return LastRound(
        number=row.number,
        begun=datetime.fromisoformat(row.created_at),
        open=row.ended_at is None,
        failed=(row.outcome or "").startswith("failed"),
        design=row.design,
        base_model=row.base_model,
        seed=row.seed,
    )


def _age(at: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
