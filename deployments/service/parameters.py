"""The body of POST /v1/chat/completions: what is accepted, what is refused, and what a model gets of it.

Does not know HTTP; a refusal is a validation error whose type is the error code of the answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from agents.chat import ChatRequest, Sampling
from agents.schemas import Message, Messages, Role, chat
from deployments.service.catalog import ServedModel

MAX_CHOICES = 8
MAX_STOPS = 4
SEEDS = 2**63
# A nucleus so small that it holds only the likeliest token: what top_p = 0 asks for.
SMALLEST_TOP_P = 1e-6


def unsupported(what: str) -> PydanticCustomError:
    """Return the refusal of something the service cannot do."""
    return PydanticCustomError("unsupported_parameter", "{what} is not supported", {"what": what})


def only(*accepted: object) -> BeforeValidator:
    """Return a validator that refuses every value but null and the given ones, which ask for nothing."""

    def check(value: object) -> object:
        if value is not None and value not in accepted:
            raise unsupported("this value")
        return value

    return BeforeValidator(check)


def join_text(content: object) -> object:
    """Return the text of a message given as a list of parts; parts are joined by line breaks."""
    return "\n".join(map(_part_text, content)) if isinstance(content, list) else content


def _part_text(part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        raise unsupported(f"a content part of type {kind!r}")
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise PydanticCustomError("invalid_type", "a text part needs its text as a string")
    return text


def _speaking_role(role: object) -> object:
    if role in ("tool", "function"):
        raise unsupported(f"the role {role!r}")
    return role


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError(
            "invalid_value", "text must not contain half of a surrogate pair"
        ) from error
    return text


Plain = Annotated[str, Field(strict=True), AfterValidator(_encodable)]
Stops = Annotated[list[Annotated[Plain, Field(min_length=1)]], Field(max_length=MAX_STOPS)]


class Parameters(BaseModel):
    """Input from outside: exact types, and fields that nobody here knows are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MessageParameter(Parameters):
    """One message; `developer` is another word for `system`."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(_speaking_role)]
    content: Annotated[Plain, BeforeValidator(join_text)]
    tool_calls: Annotated[Any, only([])] = None
    function_call: Annotated[Any, only()] = None
    audio: Annotated[Any, only()] = None

    def message(self) -> Message:
        """Return the message in the words of the agents."""
        role: Role = "system" if self.role == "developer" else self.role
        return Message(role=role, content=self.content)


class StreamOptions(Parameters):
    """Options of a streamed answer."""

    include_usage: bool | None = Field(default=None, strict=True)


class CompletionParameters(Parameters):
    """A chat completion that was asked for."""

    model: Plain = Field(min_length=1)
    messages: list[MessageParameter] = Field(min_length=1)
    n: int | None = Field(default=None, strict=True, ge=1, le=MAX_CHOICES)
    stream: bool | None = Field(default=None, strict=True)
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(default=None, strict=True, ge=1)
    max_tokens: int | None = Field(default=None, strict=True, ge=1)
    temperature: float | None = Field(default=None, strict=True, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, strict=True, ge=0.0, le=1.0)
    frequency_penalty: float | None = Field(default=None, strict=True, ge=-2.0, le=2.0)
    presence_penalty: float | None = Field(default=None, strict=True, ge=-2.0, le=2.0)
    seed: int | None = Field(default=None, strict=True, ge=-SEEDS, lt=SEEDS)
    stop: Annotated[Stops | None, BeforeValidator(_as_list)] = None

    tools: Annotated[Any, only([])] = None
    tool_choice: Annotated[Any, only("none")] = None
    functions: Annotated[Any, only([])] = None
    function_call: Annotated[Any, only("none")] = None
    modalities: Annotated[Any, only(["text"])] = None
    audio: Annotated[Any, only()] = None
    web_search_options: Annotated[Any, only()] = None
    response_format: Annotated[Any, only({"type": "text"})] = None
    logit_bias: Annotated[Any, only({})] = None
    logprobs: Annotated[Any, only(False)] = None
    top_logprobs: Annotated[Any, only(0)] = None

    @field_validator("stream_options")
    @classmethod
    def _only_when_streaming(
        cls, options: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise PydanticCustomError("invalid_value", "allowed only together with stream = true")
        return options

    @property
    def wants_usage(self) -> bool:
        """Return whether a streamed answer ends with what it took."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def requests(self, served: ServedModel) -> list[ChatRequest]:
        """Return one request per choice; choice i is drawn with seed + i."""
        messages, sampling = self._messages(served), self._sampling(served)
        return [
            ChatRequest(messages=messages, sampling=sampling.model_copy(update={"seed": self._seed(choice)}))
            for choice in range(self.n or 1)
        ]

    def _messages(self, served: ServedModel) -> Messages:
        messages = tuple(parameter.message() for parameter in self.messages)
        if served.persona is None or any(message.role == "system" for message in messages):
            return messages
        return chat(("system", served.persona.system_prompt)) + messages

    def _sampling(self, served: ServedModel) -> Sampling:
        temperature = served.sampling.temperature if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(
            temperature=temperature,
            top_p=max(top_p, SMALLEST_TOP_P),
            max_tokens=self.max_completion_tokens or self.max_tokens or served.answer_tokens,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            stop=tuple(self.stop or ()),
        )

    def _seed(self, choice: int) -> int | None:
        return None if self.seed is None else (self.seed + choice) % SEEDS
