"""A streamed completion over HTTP, and the watch over a client that may go away.

Does not know how pieces are made; it orders them, reports an error among them, and stops them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agents.chat import ChatAnswer
from deployments.service.answering import Piece, stop
from deployments.service.failures import explain
from deployments.service.replies import DONE, Completion, event

Result = TypeVar("Result")
# Chunks must not wait: neither in caches nor in the buffers of a proxy.
UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class EventStream(StreamingResponse):
    """Server-sent events; however the response ends, what makes them is stopped."""

    def __init__(self, events: AsyncGenerator[bytes], source: AsyncGenerator[Any]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=UNBUFFERED)
        self.events = events
        self.source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client goes away."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.events.aclose()
            await self.source.aclose()


async def completion_events(
    completion: Completion, first: Piece, rest: AsyncGenerator[Piece | BaseException], *, request_id: str
) -> AsyncGenerator[bytes]:
    """Yield the events of a completion; an error after the first byte is the last of them."""
    answers: dict[int, ChatAnswer] = {}
    for chunk in completion.opening():
        yield chunk
    piece: Piece | BaseException = first
    while isinstance(piece, Piece):
        for chunk in piece_events(completion, piece):
            yield chunk
        if piece.delta.answer is not None:
            answers[piece.index] = piece.delta.answer
        if (following := await anext(rest, None)) is None:
            break
        piece = following
    if isinstance(piece, BaseException):
        yield event(explain(piece, request_id)[1])
        return
    if completion.with_usage:
        yield completion.usage([answers[index] for index in sorted(answers)])
    yield DONE


def piece_events(completion: Completion, piece: Piece) -> list[bytes]:
    """Return the events of one piece: its text, if any, and the end of its choice, if that is it."""
    events = [completion.text(piece.index, piece.delta.text)] if piece.delta.text else []
    if piece.delta.answer is not None:
        events.append(completion.closing(piece.index, piece.delta.answer.finish_reason))
    return events


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Return the result of the work, or cancel it and return None when the client goes away first."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await stop(working, leaving)


async def disconnected(receive: Receive) -> None:
    """Return once the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
