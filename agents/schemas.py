"""The nouns of the language that agents speak: messages, personas, conversations.

Does not know where any of them is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Role = Literal["system", "user", "assistant"]
ResponseStyle = Literal["concise", "detailed", "conversational"]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

FirstPerson = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^I( |')\S.*")]


class Frozen(BaseModel):
    """A value: immutable, and closed to fields that nobody defined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self) -> str:
        """Return the hash of the content, the same in every process."""
        return fingerprint(self.model_dump_json())


def fingerprint(*parts: str) -> str:
    """Return 16 hex digits of the SHA-256 over the parts, each closed by a zero byte."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


class Message(Frozen):
    """One turn of a conversation."""

    role: Role
    content: str


Messages = tuple[Message, ...]


def chat(*turns: tuple[Role, str]) -> Messages:
    """Build messages from (role, content) pairs."""
    return tuple(Message(role=role, content=content) for role, content in turns)


def chat_line(messages: Iterable[Message]) -> dict[str, list[dict[str, str]]]:
    """Return one line of the OpenAI chat format: `{"messages": [{"role", "content"}, …]}`."""
    return {"messages": [{"role": m.role, "content": m.content} for m in messages]}


class Trait(Frozen):
    """A quality of the persona that every evaluation scores."""

    name: Text
    description: Text


class SamplingDefaults(Frozen):
    """How the persona's answers are drawn; `serving_max_tokens` bounds an answer in the service."""

    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    max_tokens: int = Field(default=2048, ge=256, le=8192)
    serving_max_tokens: int = Field(default=150, ge=1, le=8192)
    context_window: int = Field(default=8192, ge=4096, le=128_000)


class QualityThresholds(Frozen):
    """What a candidate must reach on held-out prompts before it is promoted (SPEC 9.3)."""

    min_prompts: int = Field(default=12, ge=2)
    min_win_rate_lower_bound: float = Field(default=0.5, ge=0.0, le=1.0)
    min_validation_pass_rate: float = Field(default=0.0, ge=0.0, le=1.0)
    max_validation_drop: float = Field(default=0.05, ge=0.0, le=1.0)
    min_similarity_gain: float = Field(default=-0.02, ge=-1.0, le=1.0)
    max_perplexity_ratio: float = Field(default=1.0, gt=0.0)
    approval: bool = Field(default=False, description="a person must approve what passed")


class Retraining(Frozen):
    """When a new round of training begins by itself (SPEC 5.3, 9.1)."""

    threshold: int = Field(default=20, ge=1, description="new examples that begin a round")
    schedule: Literal["never", "daily", "weekly"] = Field(
        default="never", description="how often to train on whatever is new, however little"
    )
    refresh_days: int = Field(default=30, ge=1, description="age at which a version is trained anew")
    min_hours: float = Field(default=0.0, ge=0.0, description="least time between two rounds")
    max_per_day: int = Field(default=6, ge=1, description="most rounds in 24 hours")


class TrainingData(Frozen):
    """Where the persona's examples come from and which of them count."""

    source: Literal["synthetic", "conversations", "both"] = "synthetic"
    conversations: str | None = Field(
        default=None, description="JSONL file in the OpenAI chat format; a bare name ships with Understudy"
    )
    categories: tuple[Text, ...] = ()


class RuleSpec(BaseModel):
    """A validation rule by name; every other field is a parameter of that rule."""

    model_config = ConfigDict(frozen=True, extra="allow")

    rule: Text

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the rule's own parameters."""
        return dict(self.model_extra or {})


class Persona(Frozen):
    """An agent design: who speaks, how, by which rules, on which base model (SPEC 1.1)."""

    name: Slug
    display_name: Text
    description: Text
    agent_type: Text
    system_prompt: Text
    response_style: ResponseStyle = "conversational"
    expertise_areas: tuple[Text, ...] = ()
    traits: tuple[Trait, ...] = Field(min_length=1)
    constitution: tuple[FirstPerson, ...] = Field(
        default=(),
        description="sentences that begin with I, of which questions for preference pairs are made",
    )
    validation: tuple[RuleSpec, ...] = ()
    quality: QualityThresholds = QualityThresholds()
    retraining: Retraining = Retraining()
    base_model: Text = "local/smollm2-135m"
    data: TrainingData = TrainingData()
    sampling: SamplingDefaults = SamplingDefaults()

    @property
    def design(self) -> str:
        """Return the hash of what makes this persona another one: its role, its prompt, its traits."""
        return fingerprint(
            self.model_dump_json(include={"agent_type", "system_prompt", "response_style", "traits"})
        )


def with_system(persona: Persona, messages: Messages) -> Messages:
    """Return the messages with the persona's system prompt in front, in place of any other."""
    return chat(("system", persona.system_prompt)) + tuple(m for m in messages if m.role != "system")


class Conversation(Frozen):
    """A conversation that took place, with the category it belongs to."""

    category: Text
    messages: Messages = Field(min_length=2)

    @property
    def id(self) -> str:
        """Return the identity, which is the content."""
        return fingerprint(*(f"{m.role}:{m.content}" for m in self.messages))
