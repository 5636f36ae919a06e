"""The OpenAI-compatible service as an application: its routes over a catalogue.

Does not know where models come from nor which process runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from agents.errors import InputError, ModelUnavailable, NotFound
from deployments.service.answering import Piece, Work, answers, pieces
from deployments.service.catalog import Catalog
from deployments.service.failures import install_failures, model_not_found, request_id_of
from deployments.service.guards import ApiKeys, BodyLimit, RequestIds
from deployments.service.parameters import CompletionParameters
from deployments.service.replies import Completion, model_json
from deployments.service.streaming import EventStream, completion_events, while_connected

# What a server notes about a client that went away before its answer; nobody receives it.
CLIENT_GONE = 499


@dataclass(frozen=True)
class Limits:
    """What one request may take: bytes of its body, seconds until its last token."""

    body_bytes: int = 2**20
    answer_seconds: float = 300.0


def create_app(catalog: Catalog, *, keys: Sequence[str] = (), limits: Limits | None = None) -> FastAPI:
    """Return the service over a catalogue; with keys, every request to /v1 must carry one of them.

    Raises InputError for a blank key, which would let everybody in.
    """
    if not all(key.strip() for key in keys):
        raise InputError("One of the API keys is blank.", "Give each key at least one character, or no keys.")
    limits = limits or Limits()
    app = FastAPI(title="Understudy", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    install_failures(app)
    app.add_middleware(BodyLimit, limit=limits.body_bytes)
    if keys:
        app.add_middleware(ApiKeys, keys=keys)
    app.add_middleware(RequestIds)
    app.include_router(health_routes(catalog))
    app.include_router(model_routes(catalog))
    app.include_router(completion_routes(catalog, limits))
    return app


def health_routes(catalog: Catalog) -> APIRouter:
    """Return the routes that say whether the process lives and whether it can serve."""
    router = APIRouter(prefix="/health")

    @router.get("/live")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "live"})

    @router.get("/ready")
    async def ready() -> JSONResponse:
        served = await asyncio.to_thread(catalog.models)
        if not served:
            raise ModelUnavailable(
                "There is no model to serve.", "Install a base model or promote a version."
            )
        return JSONResponse({"status": "ready", "models": len(served)})

    return router


def model_routes(catalog: Catalog) -> APIRouter:
    """Return the routes that list models."""
    router = APIRouter(prefix="/v1/models")

    @router.get("")
    async def list_models() -> JSONResponse:
        served = await asyncio.to_thread(catalog.models)
        return JSONResponse({"object": "list", "data": [model_json(one) for one in served]})

    @router.get("/{name:path}")
    async def retrieve_model(name: str) -> JSONResponse:
        try:
            return JSONResponse(model_json(await asyncio.to_thread(catalog.resolve, name)))
        except NotFound as error:
            return model_not_found(error)

    return router


def completion_routes(catalog: Catalog, limits: Limits) -> APIRouter:
    """Return the route that answers."""
    router = APIRouter(prefix="/v1/chat")

    @router.post("/completions")
    async def create_completion(asked: CompletionParameters, request: Request) -> Response:
        try:
            served = await asyncio.to_thread(catalog.resolve, asked.model)
        except NotFound as error:
            return model_not_found(error)
        opener = partial(asyncio.to_thread, catalog.open, served)
        work = Work(opener, asked.requests(served), limits.answer_seconds)
        completion = Completion(served.id, choices=len(work.requests), with_usage=asked.wants_usage)
        if asked.stream:
            return await stream_completion(request, work, completion)
        return await whole_completion(request, work, completion)

    return router


async def whole_completion(request: Request, work: Work, completion: Completion) -> Response:
    """Answer in one piece."""
    found = await while_connected(request, answers(work))
    return Response(status_code=CLIENT_GONE) if found is None else JSONResponse(completion.whole(found))


async def stream_completion(request: Request, work: Work, completion: Completion) -> Response:
    """Answer piece by piece; an error before the first piece is an ordinary error response."""
    source = pieces(work)
    first = await while_connected(request, next_piece(source))
    if isinstance(first, Piece):
        events = completion_events(completion, first, source, request_id=request_id_of(request))
        return EventStream(events, source)
    await source.aclose()
    if first is None:
        return Response(status_code=CLIENT_GONE)
    raise first


async def next_piece(source: AsyncGenerator[Piece | BaseException]) -> Piece | BaseException:
    """Return the next piece, or the error that came in its place."""
    return await anext(source)
