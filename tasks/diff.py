"""Read two versions from the store, hold them against each other, and say what both are to be asked.

Does not know how a model answers. Nothing is changed.
"""

from __future__ import annotations

import json

from prefect import task

from agents.chat import Sampling, parse_address
from agents.errors import InputError, NotFound
from agents.schemas import Frozen, Persona
from tasks.comparison.examples import shared_prompts
from tasks.comparison.report import Edition, VersionDiff
from tasks.comparison.scores import Scored
from tasks.comparison.sides import Base, Tuned, compare_sides
from tasks.evaluation.gate import Decision
from tasks.evaluation.prompts import HeldOut, read_held_out
from tasks.evaluation.report import EvaluationReport
from tasks.evaluation.versions import parse_number
from tasks.rate import serving_sampling
from tasks.sources.files import read_conversations
from tasks.specs import DiffSpec
from tasks.storage import registry, stage
from tasks.storage.examples import get_dataset
from tasks.storage.jobs import get_job
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Version


class Asked(Frozen):
    """Held-out conversations for one side to answer, with the prompt and the sampling of its own time."""

    address: str
    sampling: Sampling
    prompts: tuple[HeldOut, ...]


def choose_pair(store: Store, spec: DiffSpec) -> tuple[Version | None, Version]:
    """Return the older and the newer of the two versions; None stands for the newer one's base model.

    Raises NotFound for a version that is not there, InputError for one held against itself and for
    versions of two personas.
    """
    version = registry.get_version(store, spec.version)
    name = spec.other or version.parent
    if name is None:
        return None, version
    other = registry.get_version(store, name)
    if other.name == version.name:
        raise InputError(
            f"{version.name} cannot be held against itself.",
            f"Name another version: `understudy versions {version.persona}` lists them.",
        )
    if other.persona != version.persona:
        raise InputError(
            f"{version.name} and {other.name} play different personas, {version.persona} and "
            f"{other.persona}: there is nothing to compare.",
            f"Name two versions of one persona: `understudy versions {version.persona}` lists them.",
        )
    older, newer = sorted((other, version), key=lambda each: parse_number(each.number))
    return older, newer


@task(name="compare-versions", task_run_name="compare[{spec.version}]")
def compare_versions(spec: DiffSpec) -> tuple[VersionDiff, Asked, Asked]:
    """Return what changed between two versions, and what the older and the newer one are to be asked."""
    store = open_store()
    older, newer = choose_pair(store, spec)
    after = _tuned(store, newer)
    before = _tuned(store, older) if older else _base(after)
    pairs = shared_prompts(
        before.held_out if older else after.held_out,
        after.held_out,
        (*before.train, *after.train),
        spec.questions,
    )
    return (
        compare_sides(before, after),
        _asked(before.edition, before.cast or after.cast, [ours for ours, _ in pairs]),
        _asked(after.edition, after.cast, [theirs for _, theirs in pairs]),
    )


def _asked(edition: Edition, cast: Persona, prompts: list[HeldOut]) -> Asked:
    return Asked(address=edition.address, sampling=serving_sampling(cast), prompts=tuple(prompts))


def _base(after: Tuned) -> Base:
    name = after.edition.base_model
    return Base(edition=Edition(name=name, address=name, base_model=name))


def _tuned(store: Store, version: Version) -> Tuned:
    dataset, job = get_dataset(store, version.dataset_id), get_job(store, version.job_id)
    return Tuned(
        edition=_edition(store, version),
        cast=Persona.model_validate_json(dataset.cast),
        scored=_scored(store, version),
        train=tuple(read_conversations(store.object_path(dataset.train_file))),
        held_out=tuple(read_held_out(store.object_path(dataset.held_out_file))),
        settings={"backend": job.backend, **json.loads(job.hyperparameters)},
    )


def _edition(store: Store, version: Version) -> Edition:
    decisions = [p for p in stage.promotions(store, version.persona) if p.version == version.name]
    last = decisions[-1] if decisions else None
    return Edition(
        name=version.name,
        address=f"{version.base_model}@{version.job_id}",
        base_model=version.base_model,
        number=version.number,
        change=version.change,
        live=stage.live_versions(store).get(version.persona) == version.name,
        gate=last.verdict if last else None,
        reasons=Decision.model_validate_json(last.decision).reasons if last else (),
        parent=version.parent,
        design=version.design,
        dataset=version.dataset_id,
        job=version.job_id,
        evaluation=version.evaluation_id,
        created_at=version.created_at,
    )


def _scored(store: Store, version: Version) -> Scored:
    row = registry.get_evaluation(store, version.evaluation_id)
    if row is None:
        raise NotFound(
            f"The evaluation {version.evaluation_id!r} of {version.name} is not there.",
            f"`understudy evaluate {version.persona} --job {version.job_id}` makes it again.",
        )
    report = EvaluationReport.model_validate_json(row.report)
    return Scored(report=report, against=_named(store, report.baseline.model))


def _named(store: Store, address: str) -> str:
    """Return the version behind an address, or the address when it is a base model's."""
    adapter = parse_address(address).adapter
    version = registry.version_of_job(store, adapter) if adapter else None
    return version.name if version else address
