"""Let the gate decide, register the version, and put it on stage if and only if it passed.

Does not know how it was evaluated. Repeating it changes nothing.
"""

from __future__ import annotations

from typing import Literal

from prefect import task

from agents.errors import Conflict, NotFound
from agents.schemas import Frozen
from tasks.cast import find_persona
from tasks.evaluation.gate import Decision, decide
from tasks.evaluation.report import EvaluationReport
from tasks.evaluation.versions import change_of, next_number
from tasks.events import tell
from tasks.notices import announce, of_appearance, of_promotion
from tasks.rounds import move_on
from tasks.specs import PromoteSpec
from tasks.storage import registry, stage
from tasks.storage.examples import get_dataset
from tasks.storage.jobs import get_job
from tasks.storage.rounds import round_of_job
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Evaluation, Job, Promotion, Version

PromotionState = Literal["promoted", "refused", "waiting", "rejected", "outdated"]


class PromotionReport(Frozen):
    """What was decided about which version; `live` is the version on stage afterwards."""

    persona: str
    version: str
    evaluation: str
    decision: Decision
    state: PromotionState
    live: str | None
    by: str | None = None
    note: str | None = None


@task(name="promote-version", task_run_name="promote[{spec.persona}]")
def promote_version(spec: PromoteSpec) -> PromotionReport:
    """Decide on an evaluation once; a decision that stands is returned as it is.

    Raises Conflict when the candidate passed against a version that is no longer the one on stage.
    """
    store = open_store()
    persona = find_persona(store, spec.persona)
    evaluation = _evaluation(store, persona.name, spec.evaluation)
    report = EvaluationReport.model_validate_json(evaluation.report)
    decision = decide(report, persona.quality)
    version = _register(store, evaluation, improved=decision.verdict == "pass")
    state: PromotionState = "refused"
    if decision.verdict == "pass":
        state = "waiting" if persona.quality.approval else "promoted"
    asked = Promotion(
        evaluation_id=evaluation.id,
        persona=persona.name,
        version=version.name,
        verdict=decision.verdict,
        decision=decision.model_dump_json(),
        state=state,
        baseline=registry.version_of_address(store, report.baseline.model),
    )
    standing = stage.decide(store, asked)
    if standing is asked:
        announce(of_promotion(standing))
    close_round(store, evaluation)
    _judge_again(store, persona.name)
    return promotion_report(store, standing)


@task(name="record-answer", task_run_name="answer[{report.version}]")
def record_answer(report: PromotionReport, approve: bool, by: str, note: str | None) -> PromotionReport:
    """Record a person's answer to a waiting version; one that was answered meanwhile stands as it is."""
    store = open_store()
    standing = stage.get_promotion(store, report.evaluation)
    if standing is None:
        raise NotFound(f"There is no decision on {report.evaluation}.", "`understudy promote` makes it.")
    if standing.state == "waiting":
        standing = answer_promotion(store, report.version, approve=approve, by=by, note=note)
    return promotion_report(store, standing)


def answer_promotion(store: Store, version: str, *, approve: bool, by: str, note: str | None) -> Promotion:
    """Record a person's answer to a version that waits for one, and tell of it.

    Raises NotFound when it does not wait, Conflict when its evaluation is out of date.
    """
    answered = stage.answer(store, version, approve=approve, by=by, note=note)
    announce(of_promotion(answered))
    _judge_again(store, answered.persona)
    return answered


def promotion_report(store: Store, promotion: Promotion) -> PromotionReport:
    """Return a decision with who is on stage now."""
    return PromotionReport(
        persona=promotion.persona,
        version=promotion.version,
        evaluation=promotion.evaluation_id,
        decision=Decision.model_validate_json(promotion.decision),
        state=promotion.state,
        live=stage.live_versions(store).get(promotion.persona),
        by=promotion.decided_by,
        note=promotion.note,
    )


def roll_back(
    store: Store, persona: str, to: str | None, *, by: str, note: str | None = None, force: bool = False
) -> tuple[str | None, str | None]:
    """Put an earlier version back on stage; return the one that left and the one that is there.

    Without `to` it is the one before the present; where there was none, the base model. Raises NotFound for
    a version of another persona, Conflict for one that no gate let pass, unless forced.
    """
    history = [row.version for row in stage.appearances(store, persona)]
    live = stage.live_versions(store).get(persona)
    if to is None:
        if live is None:
            raise NotFound(f"{persona} has no version on stage.", "There is nothing to roll back.")
        before = history[: history.index(live)]
        to = before[-1] if before else None
    elif to not in (version.name for version in registry.versions(store, persona)):
        known = ", ".join(version.name for version in registry.versions(store, persona)) or "none yet"
        raise NotFound(f"{persona} has no version {to!r}.", f"Known: {known}.")
    elif to not in history and not force:
        raise Conflict(
            f"{to} was never on stage: no gate let it pass.", "`--force` puts it there all the same."
        )
    left = stage.put_on_stage(store, persona, to, by=by, note=note)
    if left != to:
        announce(of_appearance(stage.appearances(store, persona)[-1]))
        _judge_again(store, persona)
    return left, to


def close_round(store: Store, evaluation: Evaluation) -> None:
    """Let the round of an evaluated job find that it is decided."""
    row = round_of_job(store, evaluation.job_id)
    if row is not None and row.ended_at is None:
        move_on(store, row)


def _judge_again(store: Store, persona: str) -> None:
    """Have what waited for a person judged against who is on stage now."""
    for job in stage.outdated_jobs(store, persona):
        tell("job.completed", job, persona=persona, job=job)


def _evaluation(store: Store, persona: str, evaluation_id: str | None) -> Evaluation:
    if evaluation_id is None:
        return registry.latest_evaluation(store, persona)
    row = registry.get_evaluation(store, evaluation_id)
    if row is None or row.persona != persona:
        raise NotFound(
            f"{persona} has no evaluation {evaluation_id!r}.", f"`understudy evaluate {persona}` makes one."
        )
    return row


def _register(store: Store, evaluation: Evaluation, *, improved: bool) -> Version:
    """Return the version of the evaluated job, numbered and registered now if it has none."""
    job = get_job(store, evaluation.job_id)
    while (version := registry.version_of_job(store, job.id)) is None:
        store.add_new(_version(store, job, evaluation.id, improved=improved))
    return version


def _version(store: Store, job: Job, evaluation_id: str, *, improved: bool) -> Version:
    design = get_dataset(store, job.dataset_id).design
    earlier, row = registry.versions(store, job.persona), round_of_job(store, job.id)
    parent = earlier[-1] if earlier else None
    change = change_of(
        first=parent is None,
        redesigned=parent is not None and (parent.base_model, parent.design) != (job.base_model, design),
        refreshed=row is not None and row.reason == "refresh" and not row.new_examples,
        improved=improved,
    )
    number = next_number([version.number for version in earlier], change)
    return Version(
        name=f"{job.persona}-{number}",
        persona=job.persona,
        number=number,
        change=change,
        job_id=job.id,
        evaluation_id=evaluation_id,
        parent=stage.live_versions(store).get(job.persona) or (parent.name if parent else None),
        base_model=job.base_model,
        dataset_id=job.dataset_id,
        design=design,
    )
