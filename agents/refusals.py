"""What providers mean by refusing: an HTTP status and its body become one of our errors.

Does not know any provider's client. Statuses as OpenAI, Anthropic, OpenRouter and Together document them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agents.errors import (
    ContextExceeded,
    KeyRefused,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    RequestRefused,
    UnderstudyError,
)

TOO_LONG = ("context_length", "context length", "context window", "maximum context", "prompt is too long")
SHOWN = 300


def refusal(address: str, status: int, body: str, headers: Mapping[str, str]) -> UnderstudyError:
    """Return the error that a refusal means.

    KeyRefused for 401, 402, 403 and a spent quota, RateLimited for other 429, ContextExceeded for a prompt
    too long, ModelUnavailable for 404, RequestRefused for what else is below 500, ModelTimeout for 408, 504
    and 524, ModelError for the rest: those two are worth another try.
    """
    told = f"{address} answered {status}: {_message(body)}."
    if status in (401, 402, 403) or (status == 429 and "insufficient_quota" in body):
        return KeyRefused(told, "Check the provider's key and account.")
    if status == 429:
        return RateLimited(told, "Ask again later, or less often.", retry_after=retry_after(headers))
    if status == 413 or (status in (400, 422) and any(words in body.lower() for words in TOO_LONG)):
        return ContextExceeded(told, "Shorten the messages or leave out earlier turns.")
    if status in (408, 504, 524):
        return ModelTimeout(told, "Ask again.")
    if status == 404:
        return ModelUnavailable(told, "Check the model's name and the base URL.")
    if status < 500 and status not in (409, 425):
        return RequestRefused(told, "Asking again does not help; change the request.")
    return ModelError(told, "Ask again.")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds a provider wants no call, None when it does not say (RFC 9110, 10.2.3)."""
    exact, given = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if exact is not None:
            return max(0.0, float(exact) / 1000)
        if given is None:
            return None
        if given.strip().replace(".", "", 1).isdigit():
            return float(given)
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _message(body: str) -> str:
    """Return what the provider says was wrong, in one line."""
    try:
        error = json.loads(body)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        said = body
    return " ".join(str(said).split())[:SHOWN].rstrip(".") or "nothing more"
