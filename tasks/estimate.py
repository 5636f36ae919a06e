"""What a generation run will take, before it begins: calls, tokens, money, stage by stage.

Does not know how anything is written. What the ledger remembers of the same stage and model counts first;
where it remembers nothing, the words that are asked for do. It is of the first model of each chain.
"""

from __future__ import annotations

from typing import Literal

from agents.chat import ModelPlaces, Usage
from agents.compatible import estimate_tokens
from agents.schemas import Frozen, Persona, chat
from agents.tariffs import total_cost
from tasks.cast import find_persona
from tasks.generate import STAGES, VERSIONS, stage_chain
from tasks.models import model_places, tariff_of
from tasks.specs import GenerateSpec
from tasks.storage.calls import Habit, call_habit
from tasks.storage.drafts import Stage, missing
from tasks.storage.store import Store

TOKENS_PER_WORD = 4 / 3
INSTRUCTIONS = 300  # tokens of a stage's template, about
IDEA = 130  # tokens of an idea, about


class StageEstimate(Frozen):
    """One stage: tokens over all its calls, US dollars or None where the price is not known."""

    stage: Stage
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    basis: Literal["history", "words"]


class RunEstimate(Frozen):
    """What is still to be done of a run."""

    stages: tuple[StageEstimate, ...]

    @property
    def cost(self) -> float | None:
        """Return US dollars, None where the price of a stage's model is not known."""
        return total_cost(stage.cost for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Return all tokens, read and written."""
        return sum(stage.prompt_tokens + stage.completion_tokens for stage in self.stages)


def estimate_run(store: Store, spec: GenerateSpec) -> RunEstimate:
    """Estimate what is missing of a run; nothing is asked of any model."""
    persona, places = find_persona(store, spec.persona), model_places(store)
    return RunEstimate(stages=tuple(_stage(store, spec, persona, places, stage) for stage in STAGES))


def _stage(
    store: Store, spec: GenerateSpec, persona: Persona, places: ModelPlaces, stage: Stage
) -> StageEstimate:
    model = stage_chain(spec, stage).rungs[0].model
    left = len(missing(store, spec.name, stage, range(spec.count)))
    known = call_habit(store, VERSIONS[stage], stage, model)
    habit = known or _expected(spec, persona, stage)
    calls = round(left * habit.asks)
    usage = Usage(
        prompt_tokens=round(calls * habit.prompt_tokens),
        completion_tokens=round(calls * habit.completion_tokens),
    )
    tariff = tariff_of(model, places)
    return StageEstimate(
        stage=stage,
        model=model,
        calls=calls,
        **usage.model_dump(),
        cost=None if tariff is None else tariff.cost(usage),
        basis="history" if known else "words",
    )


def _expected(spec: GenerateSpec, persona: Persona, stage: Stage) -> Habit:
    document, response = spec.document_words * TOKENS_PER_WORD, spec.response_words * TOKENS_PER_WORD
    told = estimate_tokens(chat(("system", persona.system_prompt)))
    read = {"idea": told + INSTRUCTIONS, "document": IDEA + INSTRUCTIONS, "response": told + document}
    written = {"idea": float(IDEA), "document": document, "response": response}
    return Habit(asks=1.0, prompt_tokens=read[stage], completion_tokens=written[stage])
