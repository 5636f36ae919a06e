"""Queries on evaluations, versions, promotions, and which version is live.

Does not know how a version is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, func, select

from agents.errors import Conflict, NotFound
from tasks.evaluation.report import EvaluationReport
from tasks.storage.store import Store, patient
from tasks.storage.tables import Appearance, Evaluation, Job, Live, Match, Promotion, Version, now


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
def version_of_address(store: Store, address: str) -> str | None:
    """Return the name of the version that answers at `base@job`, or None for a base model."""
    _, _, job_id = address.partition("@")
    version = version_of_job(store, job_id) if job_id else None
    return version.name if version else None


@patient
def live_versions(store: Store) -> dict[str, str]:
    """Return the name of the live version by persona."""
    with store.session() as session:
        return {row.persona: row.version for row in session.exec(select(Live))}


@patient
def baseline_of(store: Store, job: Job) -> str:
    """Return the address that a job's model is held against: what is live, or its base while nothing is.

    A model that is itself live stays held against what it took the place of.
    """
    live = live_versions(store).get(job.persona)
    version = version_of_job(store, job.id)
    if version is not None and version.name == live:
        evaluation = get_evaluation(store, version.evaluation_id)
        if evaluation is not None:
            return EvaluationReport.model_validate_json(evaluation.report).baseline.model
    return f"{job.base_model}@{get_version(store, live).job_id}" if live else job.base_model


@patient
def standing_evaluation(store: Store, job: Job) -> Evaluation | None:
    """Return the newest evaluation of a job that was decided on, or holds it against what is live now."""
    query = select(Evaluation).where(Evaluation.job_id == job.id).order_by(col(Evaluation.created_at).desc())
    with store.session() as session:
        found = list(session.exec(query))
    baseline = baseline_of(store, job)
    for evaluation in found:
        held_against = EvaluationReport.model_validate_json(evaluation.report).baseline.model
        if get_promotion(store, evaluation.id) is not None or held_against == baseline:
            return evaluation
    return None


@patient
def get_promotion(store: Store, evaluation_id: str) -> Promotion | None:
    """Return the decision on an evaluation, or None."""
    with store.session() as session:
        return session.get(Promotion, evaluation_id)


@patient
def decide(store: Store, promotion: Promotion) -> Promotion:
    """Record a decision once and, if it promotes, put the version on stage, in one transaction.

    Returns the decision that stands: a second decision on the same evaluation changes nothing. Raises
    Conflict when the candidate passed against a version that is no longer the one on stage.
    """
    with store.session(write=True) as session:
        standing = session.get(Promotion, promotion.evaluation_id)
        if standing is not None:
            return standing
        if promotion.verdict == "pass":
            _check_baseline(session, promotion)
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
                "`understudy status` lists what waits.",
            )
        if row.state != "waiting":
            return row
        if approve:
            _check_baseline(session, row)
            _appear(session, row.persona, version, reason="approved", by=by, note=note)
        row.state = state
        row.decided_by, row.note, row.decided_at = by, note, now()
        session.add(row)
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
            _appear(session, persona, version, reason="rolled back", by=by, note=note)
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
    live = session.get(Live, persona)
    if version is None:
        if live is not None:
            session.delete(live)
    else:
        session.merge(Live(persona=persona, version=version, since=now()))
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
