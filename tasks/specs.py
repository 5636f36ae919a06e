"""What can be asked for: one frozen spec per operation, the same from command line to flow to task.

Does not know how any of it is done.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from agents.schemas import Frozen, Slug, Text
from tasks.policies import FallbackChain
from tasks.training.rounds import Reason

EMBEDDED = "local/smollm2-135m"


class GenerateSpec(Frozen):
    """Write `count` examples for a persona: ideas, documents, responses.

    `writers` answer for ideas and documents, `actors` for responses; words are what the prompts ask for.
    """

    name: Slug
    persona: Text
    count: int = Field(default=10, ge=1, le=100_000)
    seed: int = 0
    writers: FallbackChain = FallbackChain.of([EMBEDDED])
    actors: FallbackChain = FallbackChain.of([EMBEDDED])
    document_words: int = Field(default=700, ge=120, le=2000)
    response_words: int = Field(default=250, ge=60, le=2000)
    budget: float | None = Field(
        default=None,
        gt=0.0,
        description="US dollars; the run stops before it costs more, and can be continued",
    )
    trait_judge: Text | None = Field(
        default=None, description="a model that refuses responses which lack a trait of the persona"
    )
    guidance: Text | None = Field(default=None, description="what every prompt says besides, in your words")
    preview: bool | None = Field(default=None, description="write files to look at, and no examples")


class PairSpec(Frozen):
    """Write preference pairs: the persona's answer, and the untuned student's own to the same prompt.

    Prompts are the documents of the run `source`, or `count` questions on the persona's constitution, for
    which `writers` write and `actors` answer; `words` bounds an answer.
    """

    name: Slug
    persona: Text
    source: Slug | None = None
    count: int = Field(default=100, ge=1, le=100_000)
    seed: int = 0
    student: Text | None = Field(default=None, description="the persona's base model when not given")
    writers: FallbackChain = FallbackChain.of([EMBEDDED])
    actors: FallbackChain = FallbackChain.of([EMBEDDED])
    words: int = Field(default=250, ge=20, le=2000)
    system: bool = Field(default=False, description="put the persona's system prompt in front of prompts")


class FinetuneSpec(Frozen):
    """Fine-tune a persona's base model on its examples; `hyperparameters` overrides the recipe."""

    persona: Text
    backend: Slug = "local"
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    judge: Text | None = Field(default=None, description="who decides on the round, whoever evaluates it")
    wait: bool = Field(default=True, description="follow the job to its end instead of leaving it to `watch`")


class RetrainSpec(Frozen):
    """Begin a round of training if something changed: for one persona, or for all that a schedule means."""

    persona: Text | None = Field(
        default=None, description="all whose configuration says so when not given; not with `asked`"
    )
    reason: Reason = "asked"
    backend: Slug = "local"
    judge: Text | None = Field(default=None, description="who decides on the round, whoever evaluates it")
    follow: bool = Field(
        default=False, description="go on to the decision here; otherwise automations do as events arrive"
    )


class WatchSpec(Frozen):
    """Poll open jobs: once each, or until they have ended when `follow` is set."""

    job: str | None = Field(default=None, description="one job; otherwise all that are open")
    follow: bool = False
    interval: float = Field(default=2.0, gt=0.0, description="seconds between polls while following")


class EvaluateSpec(Frozen):
    """Hold a tuned model against what is live (or the base model) on held-out prompts."""

    persona: Text
    job: str | None = Field(default=None, description="the newest completed job when not given")
    judge: Text | None = Field(
        default=None,
        description="a judge plugin, or `model:` and a model address; the round's own when not given, "
        "else the reference judge",
    )


class PromoteSpec(Frozen):
    """Let the gate decide on an evaluation, register the version, and put it on stage if it passed."""

    persona: Text
    evaluation: str | None = Field(default=None, description="the newest one when not given")


class DiffSpec(Frozen):
    """Tell what changed between two versions, and have both answer the same held-out questions."""

    version: Text
    other: Text | None = Field(default=None, description="the version's parent when not given")
    questions: int = Field(default=5, ge=0, le=100)


class PipelineSpec(Frozen):
    """The whole loop for one persona: data, fine-tune, evaluation, gate."""

    persona: Text
    generate: GenerateSpec | None = None
    finetune: dict[str, Any] = Field(default_factory=dict, description="hyperparameters to override")
    backend: Slug = "local"
    judge: Text | None = Field(default=None, description="as in EvaluateSpec; kept with the round")


class SimulateSpec(Frozen):
    """Write workplace conversations to a plan, scaled to `total`; without one, to the plan's own size.

    `base_model` is the one that is to be trained: its tokenizer counts.
    """

    name: Slug
    plan: Text = "focused-2000"
    total: int | None = Field(default=None, ge=1, le=100_000)
    seed: int = 0
    writers: FallbackChain = FallbackChain.of([EMBEDDED])
    base_model: Text = EMBEDDED
