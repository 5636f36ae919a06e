"""Opening models for the tasks: addresses whose adapters are jobs or versions, behind the ledger.

Does not know what is asked of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from agents.budget import BudgetedModel, Purse
from agents.chat import ChatModel, ModelPlaces, Tariff, open_model, parse_address
from agents.errors import AdapterInvalid, InputError, ModelUnavailable, NotFound
from agents.ledger import LedgerModel, Slot
from agents.local import open_local_counter
from agents.pacing import PacedModel
from agents.schemas import Messages
from agents.tariffs import FREE, parse_tariffs
from tasks.policies import FallbackChain, Rung, call_pace, call_slot
from tasks.storage.calls import DatabaseLedger
from tasks.storage.jobs import get_job
from tasks.storage.registry import get_version
from tasks.storage.settings import Settings
from tasks.storage.store import Store


def model_places(store: Store) -> ModelPlaces:
    """Return where models of this home find their files, their keys and their time."""
    return replace(remote_places(store.settings), adapter_folder=lambda name: adapter_folder(store, name))


def remote_places(settings: Settings) -> ModelPlaces:
    """Return the same for what needs no home: models without adapters of ours."""
    return ModelPlaces(
        cache=settings.cache,
        adapter_folder=settings.cache.joinpath,
        variables=os.environ,
        timeout=settings.call_timeout,
        tariffs=parse_tariffs(settings.prices),
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
    store: Store, address: str, *, stage: str, replay: bool = True, slot: Slot | None = None
) -> LedgerModel:
    """Open a model whose every call goes through the ledger of this home.

    With a slot each call is made in one, at the model's own pace; one that is refused for coming too often
    comes again. Live chat has none: there someone waits.
    """
    model: ChatModel = open_model(address, model_places(store))
    if slot is not None:
        model = PacedModel(model, partial(call_pace, address), slot)
    return LedgerModel(model=model, ledger=DatabaseLedger(store), stage=stage, replay=replay)


def tariff_of(address: str, places: ModelPlaces) -> Tariff | None:
    """Return what a model costs, nothing for those of this machine, None where nobody knows."""
    if parse_address(address).provider == "local":
        return FREE
    if address in places.tariffs:
        return places.tariffs[address]
    try:
        found: Tariff | None = getattr(open_model(address, places), "tariff", None)
    except ModelUnavailable:
        return None
    return found


def open_rung(
    store: Store, chain: FallbackChain, rung: Rung, *, stage: str, purse: Purse | None = None
) -> LedgerModel:
    """Open the model of a rung like `open_recorded`; each of its calls is tried as often as the rung says.

    With a purse every call is paid from it; raises InputError for a model whose price nobody knows.
    """
    places = model_places(store)
    gives_way = rung != chain.rungs[-1]
    model = open_model(rung.model, places)
    if purse is not None:
        model = BudgetedModel(model, purse, known_tariff(rung.model, places))
    pace = partial(call_pace, rung.model)
    model = PacedModel(model, pace, call_slot, rung.attempts, rung.delays, gives_way=gives_way)
    return LedgerModel(model=model, ledger=DatabaseLedger(store), stage=stage)


def known_tariff(address: str, places: ModelPlaces) -> Tariff:
    """Return what a model costs; raise InputError where nobody knows, and so when a budget is reached."""
    tariff = tariff_of(address, places)
    if tariff is None:
        raise InputError(
            f"A budget needs a price, and nobody knows that of {address}.",
            f"Give it: UNDERSTUDY_PRICES={address}=READ/WRITTEN, in US dollars per million tokens.",
        )
    return tariff


def open_counter(store: Store, address: str) -> Callable[[Messages], int]:
    """Return what counts tokens as a model reads them; of a local model only the tokenizer is loaded.

    Raises InputError for a malformed address or unknown provider, ModelUnavailable when it is not there.
    """
    parsed = parse_address(address)
    if parsed.provider == "local":
        return open_local_counter(parsed, model_places(store))
    return open_model(address, model_places(store)).count_tokens
