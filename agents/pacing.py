"""How often a model may be asked: learned from its refusals, and each call's own further tries.

Does not know which models there are, nor what bounds the calls of a process: that is a `slot`. A refusal
for asking too often (429) costs no try: whoever was refused asks again when the provider wants it, and from
then on the model is asked at the rate that it has shown to take. Other passing failures are tried again
here, call by call, as the rung of the chain says, so that a shard never waits for its slowest call; whoever
runs the shard does not try the same model again, but goes on to the next one.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from math import floor
from time import monotonic
from types import TracebackType
from typing import TypeVar

from agents.chat import ChatAnswer, ChatDelta, ChatModel, ChatRequest, Relay, TextScore
from agents.errors import PERMANENT, ModelError, RateLimited
from agents.ledger import Slot
from agents.schemas import Messages

KEPT = 0.97  # share of the rate that was taken which is asked for after a refusal
KEPT_AGAIN = 0.9  # the same when the last refusal was less than SOON ago
SOON = 10.0  # s
REGAIN = 40.0  # s until twice the rate is tried when nothing is refused
PATIENCE = 600.0  # s; who wants to be left alone for longer is not waited for
UNSAID = 1.0  # s to wait when a refusal does not say
DOWN = 8  # failures in a row after which a model seems to be down
Result = TypeVar("Result")


@dataclass
class Learned:
    """What a provider takes of one model, if known: calls a second, since when, seen over how long (s)."""

    rate: float | None = None
    at: float = 0.0
    span: float = UNSAID

    def now(self, moment: float) -> float | None:
        """Return the calls a second to ask for: near what was taken for a while, then ever more.

        The shape is that of CUBIC (RFC 9438): flat about the known limit, steep beyond it.
        """
        return None if self.rate is None else self.rate * (1 + ((moment - self.at) / REGAIN) ** 3)


@dataclass
class Pace:
    """The turns of one model in one event loop: at most `most` calls at once, started as `learned` says.

    Concurrency falls by 30 % with every refusal that was not caused by the one before, and rises by one call
    for as many answers as there are calls at once.
    """

    most: int
    learned: Learned = field(default_factory=Learned)
    failures: int = 0
    _closed_until: float = 0.0
    _next: float = 0.0
    _allowed: float = 0.0
    _running: int = 0
    _starts: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._allowed = float(self.most)

    @property
    def allowed(self) -> int:
        """Return how many calls at once are made now."""
        return max(1, floor(self._allowed))

    def turn(self) -> Turn:
        """Return what to enter for a call; its `began` is when the call was let through."""
        return Turn(self)

    def accepted(self) -> None:
        """Learn that a call was answered."""
        self.failures = 0
        self._allowed = min(float(self.most), self._allowed + 1 / self._allowed)

    def refused(self, began: float, retry_after: float | None) -> None:
        """Learn that a call was refused for asking too often; one that began before the last adds to it."""
        now, wait = monotonic(), UNSAID if retry_after is None else retry_after
        self._closed_until = max(self._closed_until, now + wait)
        if self._starts:
            self._starts.pop()
        if self.learned.rate is not None and began < self.learned.at:
            self.learned.rate = max(self.learned.rate / 2, self.learned.rate - KEPT / self.learned.span)
            return
        span = max(UNSAID, wait)
        taken = max(1, sum(start > now - span for start in self._starts)) / span
        before = self.learned.now(now)
        again = before is not None and now - self.learned.at < SOON
        taken = taken if before is None else min(taken, before)
        self.learned.rate = taken * (KEPT_AGAIN if again else KEPT)
        self.learned.at, self.learned.span = now, span
        self._allowed = max(1.0, self._allowed * 0.7)

    async def enter(self) -> float:
        """Wait for a place and for the turn, and return the time."""
        if self._running >= self.allowed or self._closed_until or self.learned.rate or self._queue.locked():
            async with self._queue:
                while self._running >= self.allowed:
                    self._room.clear()
                    await self._room.wait()
                # Time is what is waited for; a refusal in the meantime may put it off.
                while (wait := max(self._closed_until, self._next) - monotonic()) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(wait)
                self._running += 1
        else:
            self._running += 1
        began = monotonic()
        rate = self.learned.now(began)
        if rate:  # a start that came late may be followed a little sooner, so that the rate is kept
            self._next = max(self._next, began - 1 / rate) + 1 / rate
        self._starts.append(began)
        return began

    def leave(self) -> None:
        """Give the place back."""
        self._running -= 1
        self._room.set()


class Turn:
    """A call's place in a pace."""

    __slots__ = ("began", "pace")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.began = 0.0

    async def __aenter__(self) -> Turn:
        self.began = await self.pace.enter()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.pace.leave()


@dataclass(frozen=True)
class PacedModel(Relay):
    """A ChatModel that is asked at its provider's pace, each call in a slot, and tried again as told.

    `attempts` counts the tries of one call; `delays` are the seconds before each further one, the last
    repeated, each stretched or shortened at random by up to half so that failed calls do not come back
    together. With `gives_way` a model that has failed DOWN times in a row is tried once a call: there is
    another one to go on to.
    """

    model: ChatModel
    pace: Callable[[], Pace]
    slot: Slot
    attempts: int = 1
    delays: tuple[float, ...] = ()
    gives_way: bool = False

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Answer the request."""
        return await self._ask(lambda: self.model.complete(request))

    async def score(self, messages: Messages) -> TextScore:
        """Score the last turn."""
        return await self._ask(lambda: self.model.score(messages))

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Stream as the model does: someone waits, so nothing is held back and nothing tried again."""
        async for delta in self.model.stream(request):
            yield delta

    async def _ask(self, call: Callable[[], Awaitable[Result]]) -> Result:
        pace, tried = self.pace(), 0
        while True:
            turn = pace.turn()
            try:
                async with turn, self.slot():
                    result = await call()
            except RateLimited as error:
                pace.refused(turn.began, error.retry_after)
                if (error.retry_after or 0.0) > PATIENCE:
                    raise
                continue
            except PERMANENT:
                raise
            except ModelError:
                tried += 1
                pace.failures += 1
                if tried >= self.attempts or (self.gives_way and pace.failures > DOWN):
                    raise
            else:
                pace.accepted()
                return result
            await asyncio.sleep(self._delay(tried))

    def _delay(self, tried: int) -> float:
        if not self.delays:
            return 0.0
        return self.delays[min(tried, len(self.delays)) - 1] * random.uniform(0.5, 1.5)  # noqa: S311
