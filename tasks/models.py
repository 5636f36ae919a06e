"""Opening models for the tasks: addresses whose adapters are jobs or versions, behind the ledger.

Does not know what is asked of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from agents.chat import ChatModel, ModelPlaces, open_model, parse_address
from agents.errors import AdapterInvalid, NotFound
from agents.ledger import LedgerModel, Slot
from agents.local import open_local_counter
from agents.schemas import Messages
from agents.tariffs import parse_tariffs
from tasks.storage.calls import DatabaseLedger
from tasks.storage.jobs import get_job
from tasks.storage.registry import get_version
from tasks.storage.store import Store


def model_places(store: Store) -> ModelPlaces:
    """Return where models of this home find their files, their keys and their time."""
    return ModelPlaces(
        cache=store.settings.cache,
        adapter_folder=lambda name: adapter_folder(store, name),
        variables=os.environ,
        timeout=store.settings.call_timeout,
        tariffs=parse_tariffs(store.settings.prices),
    )


def adapter_folder(store: Store, name: str) -> Path:
    """Return the adapter's folder of a job (`job-…`) or a version (`jamie-0.1.0`).

    Raises NotFound for a name that is neither, AdapterInvalid for a job that has no adapter.
    """
    try:
        job = get_job(store, name)
    except NotFound:
        job = get_job(store, get_version(store, name).job_id)
    if job.adapter is None:
        raise AdapterInvalid(
            f"The job {job.id} has no adapter: it is {job.status}.", "Wait for it, or choose another."
        )
    return store.object_path(job.adapter)


def open_recorded(
    store: Store, address: str, *, stage: str, replay: bool = True, slot: Slot = nullcontext
) -> LedgerModel:
    """Open a model whose every call goes through the ledger of this home, each in a slot."""
    model: ChatModel = open_model(address, model_places(store))
    return LedgerModel(model=model, ledger=DatabaseLedger(store), stage=stage, replay=replay, slot=slot)


def open_counter(store: Store, address: str) -> Callable[[Messages], int]:
    """Return what counts tokens as a model reads them; of a local model only the tokenizer is loaded.

    Raises InputError for a malformed address or unknown provider, ModelUnavailable when it is not there.
    """
    parsed = parse_address(address)
    if parsed.provider == "local":
        return open_local_counter(parsed, model_places(store))
    return open_model(address, model_places(store)).count_tokens
