"""Write the drafts of a generation run, a shard of positions at a time, and export what was accepted.

Does not know the order of the stages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from prefect import task
from prefect.runtime import task_run

from agents import documents, ideas, responses, traits
from agents.budget import Purse
from agents.chat import ChatRequest
from agents.errors import AdapterInvalid, InputError, ModelUnavailable
from agents.ledger import LedgerModel
from agents.quality import SHORTENED, settle_cut
from agents.scenarios import load_scenarios
from agents.schemas import Persona, fingerprint
from agents.tariffs import total_cost
from tasks.cast import find_persona
from tasks.chains import check_models
from tasks.earlier import Earlier, earlier_texts
from tasks.models import known_tariff, model_places, open_recorded, open_rung
from tasks.policies import FallbackChain, PartialFailure, attempt, call_slot, settle
from tasks.progress import advance
from tasks.specs import GenerateSpec
from tasks.storage.drafts import Stage, accepted_texts, claim_run, missing, spent_on
from tasks.storage.leases import leased
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Draft, now

STAGES: tuple[Stage, ...] = ("idea", "document", "response")
VERSIONS = {"idea": ideas.VERSION, "document": documents.VERSION, "response": responses.VERSION}
ASKS = 3
_purses: dict[str, Purse] = {}
Ask = Callable[..., ChatRequest]
Judge = Callable[[str], Awaitable[tuple[str, ...]]]
Problems = Callable[[str, str | None], tuple[str, ...]]  # of a text and its twin


class Named(Protocol):
    """A run: its name, and the seed of what it asks."""

    @property
    def name(self) -> str:
        """Return the run's name."""

    @property
    def seed(self) -> int:
        """Return the seed of its asks."""


class Way(NamedTuple):
    """How to ask for a draft, what to refuse, and who judges what was not refused."""

    ask: Ask
    problems: Problems
    judge: Judge | None = None


Ways = Callable[[Sequence[int]], Awaitable[dict[int, Way]]]


def stage_chain(spec: GenerateSpec, stage: Stage) -> FallbackChain:
    """Return the models that answer for a stage."""
    return spec.actors if stage == "response" else spec.writers


def sole_writer(spec: GenerateSpec) -> AbstractAsyncContextManager[None]:
    """Wait until no other process writes the run, so that no call is paid for twice."""
    return leased(open_store(), f"generate {spec.name}")


def start_run(spec: GenerateSpec) -> None:
    """Claim the run's name for this spec and persona, once every model of its chains can be asked.

    Raises Conflict when the name was asked for differently, NotFound or KeyMissing as `check_models`,
    ModelUnavailable when its judge is not there.
    """
    store = open_store()
    check_models([rung.model for stage in STAGES for rung in stage_chain(spec, stage).rungs])
    persona = find_persona(store, spec.persona)
    if spec.trait_judge is not None:
        open_recorded(store, spec.trait_judge, stage=traits.VERSION)  # before anything is paid for
    asked = spec.model_dump(mode="json", exclude_none=True, exclude={"budget"})
    asked |= {"persona": persona.name, "design": persona.design}
    claim_run(store, spec.name, persona.name, json.dumps(asked))
    _purses.pop(spec.name, None)
    if spec.budget is not None:
        _purses[spec.name] = _fill(store, spec, spec.budget)


def _fill(store: Store, spec: GenerateSpec, budget: float) -> Purse:
    """Return the purse of a run: what its drafts have cost so far is spent.

    Raises InputError for a model without a price, and on a cluster, whose processes would each have a purse.
    """
    kind, _ = store.settings.fan_out
    if kind != "local":
        raise InputError(
            f"A budget cannot be kept to on {kind}.", "Unset UNDERSTUDY_RUNNER, or give no budget."
        )
    for rung in (*spec.writers.rungs, *spec.actors.rungs):
        known_tariff(rung.model, model_places(store))
    return Purse(budget=budget, spent=spent_on(store, spec.name))


def unsettled(spec: GenerateSpec, stage: Stage, positions: Sequence[int]) -> list[int]:
    """Return which of the positions, whose stage before was accepted, still need a draft of this stage."""
    store = open_store()
    todo = missing(store, spec.name, stage, positions)
    if stage != STAGES[0]:
        ready = accepted_texts(store, spec.name, _before(stage), todo)
        todo = [position for position in todo if position in ready]
    return todo


def _before(stage: Stage) -> Stage:
    return STAGES[STAGES.index(stage) - 1]


def _shard_name() -> str:
    asked: dict[str, Any] = task_run.parameters
    positions = asked["positions"]
    return f"{asked['stage']}[{positions[0]}:{positions[-1] + 1}]"


@task(name="write-shard", task_run_name=_shard_name)
async def write_shard(spec: GenerateSpec, stage: Stage, positions: list[int]) -> None:
    """Settle the positions of a stage that are not settled yet, with the model of this attempt.

    Raises PartialFailure when the model did not answer for all of them, BudgetReached when the next call
    could cost too much; what was answered is kept.
    """
    ways = partial(_asks, open_store(), spec, stage)
    chain = stage_chain(spec, stage)
    await write_drafts(spec, stage, positions, chain=chain, version=VERSIONS[stage], ways=ways)


async def write_drafts(
    spec: Named, stage: Stage, positions: Sequence[int], *, chain: FallbackChain, version: str, ways: Ways
) -> None:
    """Settle drafts of a stage with the model of this attempt; raise PartialFailure like `write_shard`."""
    store = open_store()
    run_count, unavailable = attempt()
    rung = chain.rung(run_count, unavailable)
    todo = list(positions)
    if run_count > 1:
        todo = await asyncio.to_thread(missing, store, spec.name, stage, positions)
    try:
        model = open_rung(store, chain, rung, stage=version, purse=_purses.get(spec.name))
    except (ModelUnavailable, AdapterInvalid) as error:
        failed = dict.fromkeys(todo, str(error))
        raise PartialFailure(failed, total=len(positions), model=rung.model, final=True) from error
    asks = await ways(todo)
    earlier = earlier_texts(store, spec.name, stage)
    work = {position: _settle(earlier, spec, model, position, asks[position]) for position in todo}
    await settle(work, total=len(positions), model=rung.model)


def give_up(spec: Named, stage: Stage, failure: PartialFailure) -> None:
    """Record the positions that no model of the chain answered as failed, with the reason."""
    open_store().add_rows(
        [
            Draft(**_draft(spec, stage, position, status="failed", model=failure.model, reasons=[reason]))
            for position, reason in failure.failed.items()
        ]
    )


async def _settle(earlier: Earlier, spec: Named, model: LedgerModel, position: int, way: Way) -> None:
    """Ask for one draft, again with the reasons while it is refused, and keep the outcome.

    An answer that was cut at its token limit is refused unless most of it is whole sentences.
    """
    ask, problems, judge = way
    stage = earlier.stage
    refused: list[str] = []
    reasons: tuple[str, ...] = ()
    totals = {"prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0}
    cost: float | None = 0.0
    text = ""
    for number in range(ASKS):
        answer = await model.complete(ask(seed=_seed(spec, stage, position, number), reasons=reasons))
        totals["prompt_tokens"] += answer.usage.prompt_tokens
        totals["completion_tokens"] += answer.usage.completion_tokens
        totals["seconds"] += answer.seconds
        cost = total_cost((cost, answer.cost))
        cut = answer.finish_reason == "length"
        text, unfinished = settle_cut(answer.text) if cut else (answer.text.strip(), None)
        text = text.replace("\0", "")  # PostgreSQL keeps every character but this one
        reasons = (unfinished,) if unfinished else ()
        reasons += problems(text, await earlier.nearest(text, besides=position))
        if not reasons and judge is not None:
            reasons = await judge(text) or problems(text, await earlier.nearest(text, besides=position))
        if not reasons:
            earlier.keep(position, text)
            refused += [f"ask {number + 1}: it reached the token limit and was kept {SHORTENED}"] * cut
            break
        refused += [f"ask {number + 1}: {reason}" for reason in reasons]
    outcome = {
        "status": "dropped" if reasons else "accepted",
        "text": text,
        "model": model.address,
        "cost": cost,
    }
    draft = _draft(spec, stage, position, attempts=number + 1, reasons=refused, **outcome, **totals)
    await earlier.store.add_soon(Draft, draft)
    earlier.kept(position)
    advance()


def _draft(spec: Named, stage: Stage, position: int, *, reasons: list[str], **fields: Any) -> dict[str, Any]:
    """Return a row of `drafts`."""
    row = {"text": "", "attempts": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "cost": 0.0}
    identity = {"run": spec.name, "stage": stage, "position": position, "created_at": now()}
    return {**identity, **row, "reasons": json.dumps(reasons, ensure_ascii=False), **fields}


def _seed(spec: Named, stage: Stage, position: int, number: int) -> int:
    return int(fingerprint(str(spec.seed), stage, str(position), str(number)), 16) % 2**31


@lru_cache(maxsize=4)
def _persona(store: Store, spec: GenerateSpec) -> Persona:
    """Return the persona of a run, read once: `start_run` has seen to it that it is still the same."""
    return find_persona(store, spec.persona)


async def _asks(store: Store, spec: GenerateSpec, stage: Stage, positions: Sequence[int]) -> dict[int, Way]:
    """Return for each position how to ask for its draft and what to refuse."""
    persona = _persona(store, spec)
    make = {"idea": _idea_ask, "document": _document_ask, "response": _response_ask}[stage]
    source: dict[int, str] = {}
    if stage != "idea":
        source = await asyncio.to_thread(accepted_texts, store, spec.name, _before(stage), positions)
    return {position: make(spec, persona, position, source.get(position, "")) for position in positions}


def _idea_ask(spec: GenerateSpec, persona: Persona, position: int, _source: str) -> Way:
    scenario, situation = load_scenarios().situation(position, spec.seed)
    return Way(
        partial(ideas.idea_request, persona, scenario, situation, guidance=spec.guidance), ideas.idea_problems
    )


def _document_ask(spec: GenerateSpec, _persona: Persona, position: int, idea: str) -> Way:
    kind = load_scenarios().document_type(position)
    ask = partial(documents.document_request, idea, kind, words=spec.document_words, guidance=spec.guidance)
    return Way(ask, documents.document_problems)


def _response_ask(spec: GenerateSpec, persona: Persona, position: int, text: str) -> Way:
    kind = load_scenarios().document_type(position)
    ask = partial(
        responses.response_request, persona, text, kind, words=spec.response_words, guidance=spec.guidance
    )
    problems = partial(responses.response_problems, persona, text)
    if spec.trait_judge is None:
        return Way(ask, problems)
    judge = open_recorded(open_store(), spec.trait_judge, stage=traits.VERSION, slot=call_slot)
    return Way(ask, problems, partial(traits.trait_problems, judge, persona, text))
