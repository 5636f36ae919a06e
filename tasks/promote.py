"""Let the gate decide, register the version, and put it on stage if and only if it passed.

Does not know how it was evaluated. Repeating it changes nothing.
"""

from __future__ import annotations

from prefect import task
from prefect.events import emit_event

from agents.errors import NotFound
from agents.personas import load_persona
from agents.schemas import Frozen
from tasks.evaluation.gate import Decision, decide
from tasks.evaluation.report import EvaluationReport
from tasks.evaluation.versions import next_number
from tasks.specs import PromoteSpec
from tasks.storage import registry
from tasks.storage.examples import get_dataset
from tasks.storage.jobs import get_job
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Evaluation, Job, Promotion, Version


class PromotionReport(Frozen):
    """What was decided about which version; `live` is the version on stage afterwards."""

    persona: str
    version: str
    evaluation: str
    decision: Decision
    live: str | None


@task(name="promote-version", task_run_name="promote[{spec.persona}]")
def promote_version(spec: PromoteSpec) -> PromotionReport:
    """Decide on an evaluation once; a decision that stands is returned as it is."""
    store, persona = open_store(), load_persona(spec.persona)
    evaluation = _evaluation(store, persona.name, spec.evaluation)
    decision = decide(EvaluationReport.model_validate_json(evaluation.report), persona.quality)
    version = _register(store, evaluation, improved=decision.verdict == "pass")
    asked = Promotion(
        evaluation_id=evaluation.id,
        persona=persona.name,
        version=version.name,
        verdict=decision.verdict,
        decision=decision.model_dump_json(),
    )
    standing = registry.decide(store, asked)
    if standing is asked:
        emit_event(
            event=f"understudy.version.{'promoted' if decision.verdict == 'pass' else 'refused'}",
            resource={
                "prefect.resource.id": f"understudy.version.{version.name}",
                "understudy.persona": persona.name,
            },
            payload={"version": version.name, "verdict": decision.verdict, "evaluation": evaluation.id},
        )
    return PromotionReport(
        persona=persona.name,
        version=standing.version,
        evaluation=evaluation.id,
        decision=Decision.model_validate_json(standing.decision),
        live=registry.live_versions(store).get(persona.name),
    )


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
    earlier = registry.versions(store, job.persona)
    parent = earlier[-1] if earlier else None
    number = next_number(
        [version.number for version in earlier],
        redesigned=parent is not None and (parent.base_model, parent.design) != (job.base_model, design),
        improved=improved,
    )
    return Version(
        name=f"{job.persona}-{number}",
        persona=job.persona,
        number=number,
        job_id=job.id,
        evaluation_id=evaluation_id,
        parent=registry.live_versions(store).get(job.persona) or (parent.name if parent else None),
        base_model=job.base_model,
        dataset_id=job.dataset_id,
        design=design,
    )
