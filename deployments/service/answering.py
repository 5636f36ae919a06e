"""Run the models of one request: all choices at once, within a time limit, cancelled as one.

Does not know HTTP nor the shape of an answer on the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agents.chat import ChatAnswer, ChatDelta, ChatModel, ChatRequest
from agents.errors import ModelError, ModelTimeout

Result = TypeVar("Result")


@dataclass(frozen=True)
class Piece:
    """A piece of the streamed choice number `index`."""

    index: int
    delta: ChatDelta


@dataclass(frozen=True)
class Work:
    """What to do for one request: open the model, answer each of the requests, all within `seconds`."""

    opener: Callable[[], Awaitable[ChatModel]]
    requests: Sequence[ChatRequest]
    seconds: float


async def answers(work: Work) -> list[ChatAnswer]:
    """Answer all requests at once; raise ModelTimeout when that takes too long."""

    async def answer_all() -> list[ChatAnswer]:
        model = await work.opener()
        return await together([model.complete(request) for request in work.requests])

    return await within(work.seconds, answer_all)


async def pieces(work: Work) -> AsyncGenerator[Piece | BaseException]:
    """Yield the pieces of all answers as they come; the error that ended them, if any, comes last.

    The models run in a task of their own, which ends when this generator is closed.
    """
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()

    async def pump_all() -> None:
        model = await work.opener()
        await together([pump(model, request, index, queue) for index, request in enumerate(work.requests)])

    running = asyncio.create_task(within(work.seconds, pump_all))
    running.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (piece := await queue.get()) is not None:
            yield piece
        if (error := running.exception()) is not None:
            yield error
    finally:
        await stop(running)


async def pump(
    model: ChatModel, request: ChatRequest, index: int, queue: asyncio.Queue[Piece | None]
) -> None:
    """Put a streamed answer into the queue; raise ModelError when it breaks off without its end."""
    answer: ChatAnswer | None = None
    async for delta in model.stream(request):
        queue.put_nowait(Piece(index, delta))
        answer = delta.answer
    if answer is None:
        raise ModelError(f"The answer of {model.address} broke off before its end.", "Ask again.")


async def together(works: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return all results in order; the first error, or being cancelled, stops the rest."""
    running = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*running)
    finally:
        await stop(*running)


async def within(seconds: float, work: Callable[[], Awaitable[Result]]) -> Result:
    """Return the result of the work; raise ModelTimeout when it takes longer than the given seconds."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise ModelTimeout(
            f"There was no complete answer within {seconds:g} seconds.", "Ask for fewer tokens, or later."
        ) from error


async def stop(*running: asyncio.Task[Any]) -> None:
    """Cancel what still runs and wait until it has ended."""
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
