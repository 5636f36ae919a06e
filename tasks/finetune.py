"""Submit a fine-tuning job, once for the same data, base model and hyperparameters.

Does not know how a backend trains, nor waits for it: `tasks/watch.py` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from pydantic import ValidationError

from agents.chat import parse_address
from agents.errors import PERMANENT, Conflict, InputError
from agents.plugins import load_plugin
from agents.schemas import Persona, fingerprint
from tasks.cast import find_persona
from tasks.notices import announce, of_job
from tasks.rounds import RoundReport
from tasks.specs import FinetuneSpec
from tasks.storage.examples import get_dataset
from tasks.storage.jobs import get_job, mark_submitted, update_job
from tasks.storage.leases import lease_when_free
from tasks.storage.rounds import reopen_round, set_job
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Dataset, Job
from tasks.training.base import TERMINAL, Hyperparameters, JobState, TrainingBackend, TrainingJob


def open_backend(name: str) -> TrainingBackend:
    """Return a training backend by plugin name; raise NotFound with those there are."""
    backend: TrainingBackend = load_plugin("training", name)()
    return backend


def hyperparameters(backend: TrainingBackend, overrides: dict[str, Any]) -> Hyperparameters:
    """Return the backend's recipe with the overrides; raise InputError naming a bad one."""
    try:
        return Hyperparameters(**{**backend.recipe.model_dump(), **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"Hyperparameter {field}: {first['msg']}, got {first['input']!r}.",
            f"Known: {', '.join(Hyperparameters.model_fields)}.",
        ) from error


def training_job(store: Store, job: Job) -> TrainingJob:
    """Return what the backend of a recorded job needs."""
    dataset = get_dataset(store, job.dataset_id)
    return TrainingJob(
        id=job.id,
        persona=job.persona,
        base_model=_base_model(job),
        train_file=store.object_path(dataset.train_file),
        validation_file=None,
        hyperparameters=Hyperparameters.model_validate_json(job.hyperparameters),
        folder=store.settings.objects / "jobs" / job.id,
        cache=store.settings.cache,
    )


def _base_model(job: Job) -> str:
    """Return a folder by its whole path, since a trainer works elsewhere, and any other name as it is."""
    name = parse_address(job.base_model).name
    return str(Path(name).resolve()) if Path(name).is_dir() else name


@task(name="submit-job", task_run_name="submit[{spec.persona}]")
def submit_job(spec: FinetuneSpec, dataset_id: str, round_: RoundReport) -> str:
    """Record the job of a round and hand it to its backend; return its id.

    The same job is never started twice: a completed one is left alone while its adapter is there, one that
    died is continued by its backend.
    """
    store, backend = open_store(), open_backend(spec.backend)
    settings = hyperparameters(backend, {"seed": round_.seed, **spec.hyperparameters})
    job = _job(find_persona(store, spec.persona), spec, get_dataset(store, dataset_id), settings)
    store.add_new(job)
    if round_.number is not None:
        set_job(store, round_.persona, round_.number, job.id)
    try:
        hand_over(store, job.id)
    except PERMANENT as error:
        update_job(store, job.id, JobState(status="error", error=str(error)))
        announce(of_job(get_job(store, job.id)))
        raise
    return job.id


def hand_over(store: Store, job_id: str) -> Job:
    """Hand a recorded job to its backend unless it runs there or is done; return it as it is then.

    One process does so at a time.
    """
    with lease_when_free(store, f"submit {job_id}"):
        job = get_job(store, job_id)
        backend = open_backend(job.backend)
        found = training_job(store, job)
        lost = job.status == "completed" and backend.poll(found, job.backend_id or "").error
        if lost or job.status == "error" or job.status not in TERMINAL:
            mark_submitted(store, job.id, backend.submit(found))
        return get_job(store, job_id)


def resume_job(store: Store, job_id: str) -> None:
    """Hand a job that was cancelled or failed to its backend again, which continues it where it can.

    Its round goes on with it. Raises Conflict for a job in any other state.
    """
    with lease_when_free(store, f"submit {job_id}"):
        job = get_job(store, job_id)
        if job.status not in ("cancelled", "error"):
            raise Conflict(f"{job_id} is {job.status}.", "Only what was cancelled or failed is resumed.")
        mark_submitted(store, job.id, open_backend(job.backend).submit(training_job(store, job)))
        reopen_round(store, job.id)


def _job(persona: Persona, spec: FinetuneSpec, dataset: Dataset, settings: Hyperparameters) -> Job:
    content = json.dumps([dataset.id, persona.base_model, spec.backend, settings.model_dump()])
    return Job(
        id=f"job-{fingerprint(content)}",
        persona=persona.name,
        backend=spec.backend,
        base_model=persona.base_model,
        dataset_id=dataset.id,
        hyperparameters=settings.model_dump_json(),
        status="queued",
    )
