"""Queries on evaluations and versions.

Does not know how a version is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col, select

from agents.errors import NotFound
from tasks.evaluation.report import EvaluationReport
from tasks.storage.stage import get_promotion, live_versions
from tasks.storage.store import Store, patient
from tasks.storage.tables import Evaluation, Job, Match, Version


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
