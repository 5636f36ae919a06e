"""The seam: one protocol for everything that answers text, and `open_model` to get one.

Does not know any provider: they are found by the first part of the address, through plugins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from agents.errors import InputError
from agents.plugins import load_plugin
from agents.schemas import Frozen, Messages

FinishReason = Literal["stop", "length"]


class Sampling(Frozen):
    """How an answer is drawn. Temperature 0 is greedy; the same seed draws the same answer."""

    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=256, ge=1)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    stop: tuple[str, ...] = ()
    seed: int | None = None


class ChatRequest(Frozen):
    """Messages to answer and how to draw the answer."""

    messages: Messages = Field(min_length=1)
    sampling: Sampling = Sampling()


class Usage(Frozen):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


class Tariff(Frozen):
    """US dollars per million tokens read and written."""

    prompt: float = Field(ge=0.0)
    completion: float = Field(ge=0.0)

    def cost(self, usage: Usage) -> float:
        """Return what the tokens cost, in US dollars."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1_000_000


class ChatAnswer(Frozen):
    """An answer, why it ended and what it took; `seconds` runs from submission to the last token.

    `cost` is in US dollars: 0 for a model of this machine, None where nobody knows the price.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    seconds: float
    cost: float | None = 0.0


class ChatDelta(Frozen):
    """A piece of a streamed answer; the last one carries `answer`, the whole."""

    text: str
    answer: ChatAnswer | None = None


class TextScore(Frozen):
    """Natural log-probabilities of the tokens of the last assistant turn, its end token included."""

    log_probabilities: tuple[float, ...]
    seconds: float


class ChatModel(Protocol):
    """Whatever answers text: a teacher, a judge, a persona."""

    @property
    def address(self) -> str:
        """Return the address that opens this model."""

    @property
    def context_window(self) -> int:
        """Return how many tokens prompt and answer may have together."""

    def count_tokens(self, messages: Messages) -> int:
        """Return the number of tokens of the messages as the model reads them."""

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Answer the request.

        Raises ContextExceeded for a prompt that does not fit, ModelError when no answer can be had.
        """

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Yield the answer piece by piece; the pieces join to `answer.text` of the last one."""

    async def score(self, messages: Messages) -> TextScore:
        """Return the log-probabilities of the last turn, which must be the assistant's."""


class Relay:
    """What a model in front of another passes on as it is."""

    model: ChatModel

    @property
    def address(self) -> str:
        """Return the address of the model."""
        return self.model.address

    @property
    def context_window(self) -> int:
        """Return the window of the model."""
        return self.model.context_window

    def count_tokens(self, messages: Messages) -> int:
        """Return the number of tokens as the model counts them."""
        return self.model.count_tokens(messages)


@dataclass(frozen=True)
class ModelAddress:
    """`provider/name` or `provider/name@adapter`."""

    provider: str
    name: str
    adapter: str | None = None

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}" + (f"@{self.adapter}" if self.adapter else "")


def parse_address(address: str) -> ModelAddress:
    """Split a model address; raise InputError when it has no provider or no name."""
    provider, slash, rest = address.partition("/")
    name, at, adapter = rest.rpartition("@")
    if not at:
        name, adapter = rest, ""
    if not (provider and slash and name) or (at and not adapter):
        raise InputError(
            f"{address!r} is not a model address.",
            "Write provider/name or provider/name@adapter, for example local/smollm2-135m.",
        )
    return ModelAddress(provider=provider, name=name, adapter=adapter or None)


@dataclass(frozen=True)
class ModelPlaces:
    """Where models find their files, and what they may know of the environment.

    Files are converted checkpoints and the folder of a named adapter. `variables` holds keys and base URLs
    by the names that providers give them; `timeout` is how long one call may take, in seconds; `tariffs` are
    prices by model address, for models whose provider or library tells none.
    """

    cache: Path
    adapter_folder: Callable[[str], Path]
    variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    timeout: float = 30.0
    tariffs: Mapping[str, Tariff] = field(default_factory=dict)


def open_model(address: str, places: ModelPlaces) -> ChatModel:
    """Open the model behind an address.

    Raises InputError for a malformed address or unknown provider, ModelUnavailable when the model is
    not there, AdapterInvalid for broken adapter files.
    """
    parsed = parse_address(address)
    opener = load_plugin("models", parsed.provider)
    model: ChatModel = opener(parsed, places)
    return model
