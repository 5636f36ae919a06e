"""The call ledger: every model call gets a key and one durable row, and is never paid for twice.

Does not know where rows are kept: anything with `find` and `record` is a ledger.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar
from uuid import uuid4

from agents.chat import ChatAnswer, ChatDelta, ChatModel, ChatRequest, Relay, TextScore, Usage
from agents.schemas import Frozen, Messages, fingerprint

CallKind = Literal["answer", "score"]
Slot = Callable[[], AbstractAsyncContextManager[object]]
Result = TypeVar("Result", ChatAnswer, TextScore)


class Call(Frozen):
    """A finished call; `request` and `response` are JSON, `cost` is in US dollars, None if not known."""

    key: str
    kind: CallKind
    stage: str
    model: str
    request: str
    response: str
    usage: Usage
    seconds: float
    cost: float | None = 0.0


class Ledger(Protocol):
    """Where finished calls are kept."""

    async def find(self, key: str) -> str | None:
        """Return the recorded response of a call, or None."""

    async def record(self, call: Call) -> None:
        """Keep a finished call durably; return only when it would survive a kill."""


@dataclass
class CallCount:
    """How many calls a ledger let through and how many it answered itself."""

    made: int = 0
    replayed: int = 0


def call_key(kind: CallKind, stage: str, model: str, request: str) -> str:
    """Return the identity of a call.

    `request` holds messages and sampling; its seed also tells samples of one prompt apart, and `stage`
    carries the version of the prompt that made it (`document/1`), never a hash of code.
    """
    return fingerprint(kind, stage, model, request)


@dataclass
class LedgerModel(Relay):
    """A ChatModel that answers finished calls from the ledger and records new ones before use.

    With `replay=False` every call is made and recorded under a key of its own: live chat is accounted
    for, and never answered from memory. Who bounds the calls gives a `slot`, entered for each call; the
    next one begins while this one is recorded.
    """

    model: ChatModel
    ledger: Ledger
    stage: str
    replay: bool = True
    slot: Slot = nullcontext
    count: CallCount = field(default_factory=CallCount)

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Answer from the ledger if this call was finished before, otherwise from the model."""
        content = request.model_dump_json()
        found = await self._find("answer", content, ChatAnswer)
        if found is not None:
            return found
        async with self.slot():
            answer = await self.model.complete(request)
        await sleep(0)  # whoever waits for the slot begins
        await self._record("answer", content, answer, answer.usage, cost=answer.cost)
        return answer

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Stream from the model and record the whole answer before its last piece is passed on."""
        async for delta in self.model.stream(request):
            if delta.answer is not None:
                answer, content = delta.answer, request.model_dump_json()
                await self._record("answer", content, answer, answer.usage, cost=answer.cost)
            yield delta

    async def score(self, messages: Messages) -> TextScore:
        """Score from the ledger if this call was finished before, otherwise with the model."""
        content = ChatRequest(messages=messages).model_dump_json(include={"messages"})
        found = await self._find("score", content, TextScore)
        if found is not None:
            return found
        async with self.slot():
            score = await self.model.score(messages)
        usage = Usage(prompt_tokens=len(score.log_probabilities), completion_tokens=0)
        await self._record("score", content, score, usage)
        return score

    async def _find(self, kind: CallKind, content: str, result: type[Result]) -> Result | None:
        if not self.replay:
            return None
        response = await self.ledger.find(call_key(kind, self.stage, self.address, content))
        if response is None:
            return None
        self.count.replayed += 1
        return result.model_validate_json(response)

    async def _record(
        self, kind: CallKind, content: str, result: Result, usage: Usage, *, cost: float | None = 0.0
    ) -> None:
        stage = self.stage if self.replay else f"{self.stage}/{uuid4().hex}"
        await self.ledger.record(
            Call(
                key=call_key(kind, stage, self.address, content),
                kind=kind,
                stage=self.stage,
                model=self.address,
                request=content,
                response=result.model_dump_json(),
                usage=usage,
                seconds=result.seconds,
                cost=cost,
            )
        )
        self.count.made += 1
