"""The local model behind the ChatModel seam: asyncio on one side, the engine's thread on the other.

Does not know how the engine batches; a caller who is cancelled or goes away frees its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from copy import copy
from typing import Generic, TypeVar

from agents.chat import ChatAnswer, ChatDelta, ChatRequest, ModelAddress, TextScore
from agents.errors import ContextExceeded, UnderstudyError
from agents.local.engine import Engine
from agents.local.routing import Adapter
from agents.local.tokens import encode_last_turn, encode_prompt
from agents.local.work import Generation, Listener, Scoring
from agents.schemas import Messages

News = TypeVar("News")


class LocalModel:
    """A base model in this process, with an adapter or without."""

    def __init__(self, address: ModelAddress, engine: Engine, adapter: Adapter | None = None) -> None:
        self._address = str(address)
        self.engine = engine
        self._adapter = adapter

    @property
    def address(self) -> str:
        """Return the address that opens this model."""
        return self._address

    @property
    def context_window(self) -> int:
        """Return how many tokens prompt and answer may have together."""
        return self.engine.context_window

    def count_tokens(self, messages: Messages) -> int:
        """Return the number of tokens of the prompt these messages make, template included."""
        return len(encode_prompt(self.engine.tokenizer, messages))

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Answer the request."""
        async with aclosing(self._deltas(request, wants_pieces=False)) as deltas:
            async for delta in deltas:
                if delta.answer is not None:
                    return delta.answer
        raise RuntimeError("the engine's news ended without an answer")

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Yield the answer piece by piece."""
        async with aclosing(self._deltas(request, wants_pieces=True)) as deltas:
            async for delta in deltas:
                yield delta

    async def score(self, messages: Messages) -> TextScore:
        """Return the log-probabilities of the last turn, which must be the assistant's."""
        ids, first = encode_last_turn(self.engine.tokenizer, messages)
        if len(ids) > self.context_window:
            raise self._too_long(len(ids))
        mailbox: Mailbox[TextScore] = Mailbox(wants_pieces=False)
        self.engine.submit(Scoring(ids, first, self._adapter, mailbox))
        with mailbox:
            return await mailbox.next()

    async def _deltas(self, request: ChatRequest, *, wants_pieces: bool) -> AsyncGenerator[ChatDelta, None]:
        mailbox: Mailbox[ChatDelta] = Mailbox(wants_pieces=wants_pieces)
        self.engine.submit(self._generation(request, mailbox))
        with mailbox:
            while True:
                delta = await mailbox.next()
                yield delta
                if delta.answer is not None:
                    return

    def _generation(self, request: ChatRequest, listener: Listener[ChatDelta]) -> Generation:
        ids = encode_prompt(self.engine.tokenizer, request.messages)
        room = self.context_window - len(ids)
        if room < 1:
            raise self._too_long(len(ids))
        sampling = request.sampling
        if sampling.max_tokens > room:
            sampling = sampling.model_copy(update={"max_tokens": room})
        return Generation(
            ids,
            self._adapter,
            listener,
            sampling=sampling,
            tokenizer=self.engine.tokenizer,
            stop_ids=self.engine.stop_ids,
        )

    def _too_long(self, tokens: int) -> ContextExceeded:
        return ContextExceeded(
            f"The messages have {tokens} tokens; {self._address} has a context window of "
            f"{self.context_window}, the answer included.",
            "Shorten the messages or leave out earlier turns.",
        )


class Mailbox(Generic[News]):
    """Carries news from the engine's thread to the event loop of whoever waits."""

    def __init__(self, *, wants_pieces: bool) -> None:
        self.wants_pieces = wants_pieces
        self.gone = False
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[News | UnderstudyError] = asyncio.Queue()

    def hear(self, news: News | UnderstudyError) -> None:
        """Put news into the queue, from any thread; once the loop is closed, nobody waits any more."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, news)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self.gone = True

    async def next(self) -> News:
        """Return the next piece or result; raise the error that came in its place."""
        news = await self._queue.get()
        if isinstance(news, UnderstudyError):
            raise copy(news)  # others may be told the same: each gets a traceback of its own
        return news

    def __enter__(self) -> Mailbox[News]:
        return self

    def __exit__(self, *_: object) -> None:
        self.gone = True
