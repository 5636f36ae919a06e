"""Write the drafts of a generation run, a shard of positions at a time, and export what was accepted.

Does not know the order of the stages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from prefect import task
from prefect.runtime import task_run

from agents import documents, ideas, responses
from agents.chat import ChatRequest
from agents.errors import AdapterInvalid, ContextExceeded, ModelError, ModelUnavailable
from agents.ledger import LedgerModel
from agents.personas import load_persona
from agents.quality import whole_sentences
from agents.scenarios import load_scenarios
from agents.schemas import Persona, fingerprint
from tasks.models import open_recorded
from tasks.policies import FallbackChain, PartialFailure, attempt, bounded
from tasks.progress import advance
from tasks.specs import GenerateSpec
from tasks.storage.drafts import Stage, claim_run, drafts, missing
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Draft

STAGES: tuple[Stage, ...] = ("idea", "document", "response")
VERSIONS = {"idea": ideas.VERSION, "document": documents.VERSION, "response": responses.VERSION}
ASKS = 3
Ask = Callable[..., ChatRequest]
Problems = Callable[[str, Sequence[str]], tuple[str, ...]]


def stage_chain(spec: GenerateSpec, stage: Stage) -> FallbackChain:
    """Return the models that answer for a stage."""
    return spec.actors if stage == "response" else spec.writers


def start_run(spec: GenerateSpec) -> None:
    """Claim the run's name for this spec and persona; raise Conflict when it was asked for differently."""
    persona = load_persona(spec.persona)
    asked = spec.model_dump(mode="json") | {"persona": persona.name, "design": persona.design}
    claim_run(open_store(), spec.name, persona.name, json.dumps(asked))


def eligible(spec: GenerateSpec, stage: Stage) -> list[int]:
    """Return the positions whose stage before was accepted, in order."""
    if stage == "idea":
        return list(range(spec.count))
    before = drafts(open_store(), spec.name, STAGES[STAGES.index(stage) - 1])
    return [position for position, draft in before.items() if draft.status == "accepted"]


def unsettled(spec: GenerateSpec, stage: Stage) -> list[int]:
    """Return the positions of a stage that still need a draft."""
    return missing(open_store(), spec.name, stage, eligible(spec, stage))


def _shard_name() -> str:
    asked: dict[str, Any] = task_run.parameters
    positions = asked["positions"]
    return f"{asked['stage']}[{positions[0]}:{positions[-1] + 1}]"


@task(name="write-shard", task_run_name=_shard_name)
async def write_shard(spec: GenerateSpec, stage: Stage, positions: list[int]) -> None:
    """Settle the positions of a stage that are not settled yet, with the model of this attempt.

    Raises PartialFailure when the model did not answer for all of them; what it answered is kept.
    """
    store = open_store()
    run_count, unavailable = attempt()
    address = stage_chain(spec, stage).model(run_count, unavailable)
    todo = missing(store, spec.name, stage, positions)
    try:
        model = open_recorded(store, address, stage=VERSIONS[stage])
    except (ModelUnavailable, AdapterInvalid) as error:
        failed = dict.fromkeys(todo, str(error))
        raise PartialFailure(failed, total=len(positions), model=address, final=True) from error
    asks = _asks(store, spec, stage, todo)
    outcomes = await asyncio.gather(
        *(_settle(store, spec, stage, model, position, *asks[position]) for position in todo),
        return_exceptions=True,
    )
    failures = {at: str(error) for at, error in zip(todo, outcomes, strict=True) if error is not None}
    for outcome in outcomes:
        if outcome is not None and not isinstance(outcome, (ModelError, ContextExceeded)):
            raise outcome
    if failures:
        raise PartialFailure(failures, total=len(positions), model=address, final=False)


def give_up(spec: GenerateSpec, stage: Stage, failure: PartialFailure) -> None:
    """Record the positions that no model of the chain answered as failed, with the reason."""
    for position, reason in failure.failed.items():
        _keep(open_store(), spec, stage, position, status="failed", model=failure.model, reasons=[reason])
        advance()


async def _settle(
    store: Store,
    spec: GenerateSpec,
    stage: Stage,
    model: LedgerModel,
    position: int,
    ask: Ask,
    problems: Problems,
) -> None:
    """Ask for one draft, again with the reasons while it is refused, and keep the outcome."""
    refused: list[str] = []
    reasons: tuple[str, ...] = ()
    totals = {"prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0}
    text = ""
    for number in range(ASKS):
        answer = await bounded(
            model.complete(ask(seed=_seed(spec, stage, position, number), reasons=reasons))
        )
        totals["prompt_tokens"] += answer.usage.prompt_tokens
        totals["completion_tokens"] += answer.usage.completion_tokens
        totals["seconds"] += answer.seconds
        text = whole_sentences(answer.text) if answer.finish_reason == "length" else answer.text.strip()
        reasons = problems(text, _earlier(store, spec, stage, position))
        if not reasons:
            break
        refused += [f"ask {number + 1}: {reason}" for reason in reasons]
    _keep(
        store,
        spec,
        stage,
        position,
        status="dropped" if reasons else "accepted",
        text=text,
        model=model.address,
        attempts=number + 1,
        reasons=refused,
        **totals,
    )
    advance()


def _keep(
    store: Store, spec: GenerateSpec, stage: Stage, position: int, *, reasons: list[str], **fields: Any
) -> None:
    row = {"text": "", "attempts": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "cost": 0.0}
    store.add_new(
        Draft(
            run=spec.name,
            stage=stage,
            position=position,
            reasons=json.dumps(reasons, ensure_ascii=False),
            **{**row, **fields},
        )
    )


def _seed(spec: GenerateSpec, stage: Stage, position: int, number: int) -> int:
    return int(fingerprint(str(spec.seed), stage, str(position), str(number)), 16) % 2**31


def _earlier(store: Store, spec: GenerateSpec, stage: Stage, position: int) -> list[str]:
    settled = drafts(store, spec.name, stage)
    return [row.text for at, row in settled.items() if row.status == "accepted" and at != position]


def _asks(
    store: Store, spec: GenerateSpec, stage: Stage, positions: Sequence[int]
) -> dict[int, tuple[Ask, Problems]]:
    """Return for each position how to ask for its draft and what to refuse."""
    persona = load_persona(spec.persona)
    make = {"idea": _idea_ask, "document": _document_ask, "response": _response_ask}[stage]
    source = {} if stage == "idea" else drafts(store, spec.name, STAGES[STAGES.index(stage) - 1])
    return {
        position: make(spec, persona, position, source[position].text if source else "")
        for position in positions
    }


def _idea_ask(spec: GenerateSpec, persona: Persona, position: int, _source: str) -> tuple[Ask, Problems]:
    scenario, situation = load_scenarios().situation(position, spec.seed)
    return partial(ideas.idea_request, persona, scenario, situation), ideas.idea_problems


def _document_ask(spec: GenerateSpec, _persona: Persona, position: int, idea: str) -> tuple[Ask, Problems]:
    kind = load_scenarios().document_type(position)
    ask = partial(documents.document_request, idea, kind, words=spec.document_words)
    return ask, documents.document_problems


def _response_ask(spec: GenerateSpec, persona: Persona, position: int, text: str) -> tuple[Ask, Problems]:
    kind = load_scenarios().document_type(position)
    ask = partial(responses.response_request, persona, text, kind, words=spec.response_words)
    return ask, partial(responses.response_problems, persona, text)
