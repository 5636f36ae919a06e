"""What stands before the routes: request ids, API keys and the limit of a body's size.

Does not know any route; keys and limit hold for paths under /v1, request ids for all.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.service.failures import REQUEST_ID, refusal

GUARDED = re.compile(r"/v1(/|$)")
GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def is_guarded(scope: Scope) -> bool:
    """Return whether a request goes to the API."""
    return scope["type"] == "http" and GUARDED.match(scope["path"]) is not None


class RequestIds:
    """Give each request an id, the client's own if it sent a plain one, and return it as a header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = sent if GOOD_ID.fullmatch(sent) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class ApiKeys:
    """Let a request to the API pass only with one of the keys as its bearer token."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self.digests = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if not is_guarded(scope) or self.knows(Headers(scope=scope).get("authorization", "")):
            await self.app(scope, receive, send)
            return
        await no_key()(scope, receive, send)

    def knows(self, authorization: str) -> bool:
        """Return whether the header carries a key; takes the same time for each wrong one."""
        scheme, _, token = authorization.partition(" ")
        digest = sha256(token.strip().encode()).digest()
        found = [compare_digest(digest, known) for known in self.digests]
        return scheme.lower() == "bearer" and any(found)


def no_key() -> JSONResponse:
    """Return the answer to a request without a valid key."""
    message = "The API key is missing or wrong. Send it as the header Authorization: Bearer KEY."
    response = refusal(401, message, code="invalid_api_key")
    response.headers["www-authenticate"] = "Bearer"
    return response


class BodyLimit:
    """Read the body of a request to the API up front, and refuse one that is larger than the limit."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or answer 413."""
        if not is_guarded(scope):
            await self.app(scope, receive, send)
            return
        body = await self.read(receive)
        if body is None:
            message = f"The body is larger than {self.limit} bytes. Send a shorter conversation."
            await refusal(413, message, code="request_too_large")(scope, receive, send)
            return
        await self.app(scope, replay(body, receive), send)

    async def read(self, receive: Receive) -> bytes | None:
        """Return the body, or None as soon as it is too large."""
        body, more = bytearray(), True
        while more and len(body) <= self.limit:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body) if len(body) <= self.limit else None


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that hands out a body that was read already, then whatever comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again
