"""Every refusal and failure as an answer: the standard envelope with message, type, param and code.

Does not know what was asked. Messages of errors that the caller can act on go out as they are; those of
the others stay in the log, under the request id.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agents.errors import ContextExceeded, InputError, ModelError, NotFound, UnderstudyError

logger = logging.getLogger(__name__)
REQUEST_ID = "x-request-id"
LONGEST_VALUE = 80
CODES = {"missing": "missing_required_parameter", "json_invalid": "invalid_json"}
OUR_CODES = ("unsupported_parameter", "invalid_value", "invalid_type")


def envelope(status: int, message: str, *, param: str | None, code: str | None) -> dict[str, Any]:
    """Return the body of an error: `{"error": {"message", "type", "param", "code"}}`."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refusal(status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSONResponse:
    """Return an error as a response."""
    return JSONResponse(envelope(status, message, param=param, code=code), status)


def model_not_found(error: NotFound) -> JSONResponse:
    """Return the answer to a model name that does not exist."""
    return refusal(404, str(error), param="model", code="model_not_found")


def explain(error: BaseException, request_id: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the envelope of an error; log it when its message is not for the caller."""
    status, code = (
        (error.status, error.code) if isinstance(error, UnderstudyError) else (500, "internal_error")
    )
    if isinstance(error, InputError | ModelError):
        param = "messages" if isinstance(error, ContextExceeded) else None
        return status, envelope(status, str(error), param=param, code=code)
    logger.error("Request %s failed.", request_id, exc_info=error)
    message = f"The server failed on this request; its log says why, under the request id {request_id}."
    return status, envelope(status, message, param=None, code=code)


def request_id_of(request: Request) -> str:
    """Return the id under which this request is answered and logged."""
    return str(getattr(request.state, "request_id", "unknown"))


def install_failures(app: FastAPI) -> None:
    """Let the application answer every error in the standard envelope."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return invalid_parameter(error.errors()[0])

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> JSONResponse:
        return wrong_route(request, error)

    @app.exception_handler(UnderstudyError)
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        request_id = request_id_of(request)
        status, body = explain(error, request_id)
        return JSONResponse(body, status, {REQUEST_ID: request_id})


def wrong_route(request: Request, error: HTTPException) -> JSONResponse:
    """Return the answer to a path or method that does not exist, or to a body that cannot be read."""
    asked = f"{request.method} {request.url.path}"
    message, code = {
        400: ("The body is not JSON that can be read.", "invalid_json"),
        404: (f"There is no {asked}.", "unknown_url"),
        405: (f"{asked} is not allowed.", "method_not_allowed"),
    }.get(error.status_code, (str(error.detail), None))
    response = refusal(error.status_code, message, code=code)
    response.headers.update(error.headers or {})
    return response


def invalid_parameter(problem: Mapping[str, Any]) -> JSONResponse:
    """Return the answer to a body that does not validate, from one pydantic problem."""
    kind = str(problem["type"])
    if kind == "json_invalid":
        position, reason = problem["loc"][-1], problem["ctx"]["error"]
        return refusal(400, f"The body is not JSON: {reason} at character {position}.", code=CODES[kind])
    param = dotted(problem["loc"][1:])
    said = "required" if kind == "missing" else f"{problem['msg']}, but got {shorten(problem.get('input'))}"
    return refusal(400, f"{param or 'The JSON body'}: {said}.", param=param, code=code_of(kind))


def code_of(kind: str) -> str:
    """Return the error code of a pydantic problem."""
    if kind in OUR_CODES:
        return kind
    return CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")


def dotted(location: Sequence[str | int]) -> str | None:
    """Return where a problem lies in the body, as in `messages[0].content`; None for the body itself."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return path.removeprefix(".") or None


def shorten(value: object) -> str:
    """Return a value fit for a message."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
