"""Models behind the OpenAI chat protocol, at any base URL: `openai/<model>`.

Does not know who serves it, and neither retries nor waits for its turn: whoever calls decides on that. The
base URL is OPENAI_BASE_URL, the key OPENAI_API_KEY; on the loopback (vLLM and friends) none is needed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from agents.chat import (
    ChatAnswer,
    ChatDelta,
    ChatRequest,
    FinishReason,
    ModelAddress,
    ModelPlaces,
    Sampling,
    Tariff,
    TextScore,
    Usage,
)
from agents.errors import InputError, KeyMissing, ModelError, ModelTimeout, RequestRefused
from agents.refusals import refusal
from agents.schemas import Messages
from agents.tariffs import FREE

if TYPE_CHECKING:
    import httpx

OPENAI = "https://api.openai.com/v1"
BASE_URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
WINDOW = 128_000
CHARACTERS = 4  # of English text in a token, about
FRAME = 4  # tokens that a message costs besides its text, about
ENDS: Mapping[str, FinishReason] = {"stop": "stop", "eos": "stop", "length": "length"}

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()


def open_compatible(address: ModelAddress, places: ModelPlaces) -> CompatibleModel:
    """Open `openai/<model>`; nothing is sent yet.

    Raises KeyMissing without a key away from the loopback, InputError for an adapter or a URL that is none.
    """
    if address.adapter:
        raise InputError(
            f"{address} names an adapter, which the OpenAI protocol does not know.",
            "Give the name under which the server offers the tuned model.",
        )
    url = places.variables.get(BASE_URL, OPENAI).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{BASE_URL}={url!r} is not a web address.", "Write http://host:port/v1.")
    key, here = places.variables.get(KEY, ""), parts.hostname in LOOPBACK
    if not (key or here):
        raise KeyMissing(
            f"{address} at {url} needs a key.", f"Set {KEY}, or {BASE_URL} to a server of yours."
        )
    tariff = places.tariffs.get(str(address), FREE if here else None)
    return CompatibleModel(str(address), address.name, url, key, places.timeout, tariff)


def estimate_tokens(messages: Messages) -> int:
    """Return about how many tokens the messages have: a token for four characters, and a frame for each.

    An estimate: the tokenizer of a remote model is not here, and other languages than English take more.
    """
    return sum(FRAME + -(-len(message.content) // CHARACTERS) for message in messages)


@dataclass(frozen=True)
class CompatibleModel:
    """A model of a server that speaks the OpenAI chat protocol; without a tariff nobody knows its price."""

    address: str
    name: str
    url: str
    key: str
    timeout: float
    tariff: Tariff | None = None
    context_window: int = WINDOW
    """What is assumed: the protocol does not tell, and refuses what is too long with ContextExceeded."""

    def __repr__(self) -> str:
        return f"CompatibleModel({self.address!r} at {self.url!r})"

    def count_tokens(self, messages: Messages) -> int:
        """Return an estimate, as `estimate_tokens` says: nothing is asked of the server for it."""
        return estimate_tokens(messages)

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Answer the request; the timeout bounds the whole call, and errors are as `refusal` says."""
        import httpx

        started = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout):
                response = await _client().post(**self._post(request))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise self._late() from error
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        if response.status_code != httpx.codes.OK:
            raise refusal(self.address, response.status_code, response.text, response.headers)
        body = _parse(self.address, response.content)
        return self._answer(request, body, time.monotonic() - started)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Yield the answer piece by piece; the timeout bounds the wait for each piece."""
        import httpx

        started = time.monotonic()
        whole: dict[str, Any] = {"choices": [{"message": {"content": ""}, "finish_reason": None}]}
        more = {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with _client().stream("POST", **self._post(request, more)) as response:
                if response.status_code != httpx.codes.OK:
                    told = (await response.aread()).decode(errors="replace")
                    raise refusal(self.address, response.status_code, told, response.headers)
                async for line in response.aiter_lines():
                    if line.startswith("data:") and line[5:].strip() != "[DONE]":
                        piece = _add(whole, _parse(self.address, line[5:]))
                        if piece:
                            yield ChatDelta(text=piece)
        except httpx.TimeoutException as error:
            raise self._late() from error
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        yield ChatDelta(text="", answer=self._answer(request, whole, time.monotonic() - started))

    async def score(self, messages: Messages) -> TextScore:
        """Refuse: the chat protocol gives no log-probabilities of a text that is there already."""
        raise RequestRefused(
            f"{self.address} cannot score a given text: the OpenAI chat protocol has no way to ask for it.",
            "Score with a local model.",
        )

    def _post(self, request: ChatRequest, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        asked = {
            "model": self.name,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            # OpenAI's own newer models know only the first, most other servers only the second.
            "max_completion_tokens" if self.url == OPENAI else "max_tokens": request.sampling.max_tokens,
            **sampling_fields(request.sampling),
            **(more or {}),
        }
        return {
            "url": f"{self.url}/chat/completions",
            "json": asked,
            "headers": {"authorization": f"Bearer {self.key}"} if self.key else {},
            "timeout": self.timeout,
        }

    def _answer(self, request: ChatRequest, body: Mapping[str, Any], seconds: float) -> ChatAnswer:
        """Read a response's body; raise ModelError for one that is no answer."""
        try:
            choice = body["choices"][0]
            text, reason = choice["message"].get("content") or "", choice["finish_reason"]
            told = body.get("usage") or {}
            usage = Usage(
                prompt_tokens=told.get("prompt_tokens", self.count_tokens(request.messages)),
                completion_tokens=told.get("completion_tokens", -(-len(text) // CHARACTERS)),
            )
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(
                f"{self.address} answered with something that is no chat completion: {str(body)[:200]!r}.",
                "Check that the base URL is that of an OpenAI-compatible API.",
            ) from error
        if reason == "content_filter":
            raise RequestRefused(f"{self.address} filtered its answer.", "Word the request differently.")
        if reason not in ENDS:
            raise ModelError(f"{self.address} ended its answer with {reason!r}, which is no end of a text.")
        cost = told.get("cost")
        if cost is None and self.tariff is not None:
            cost = self.tariff.cost(usage)
        return ChatAnswer(text=text, finish_reason=ENDS[reason], usage=usage, seconds=seconds, cost=cost)

    def _late(self) -> ModelTimeout:
        return ModelTimeout(
            f"{self.address} did not answer within {self.timeout:g} s.",
            "Ask again, or allow more with UNDERSTUDY_CALL_TIMEOUT.",
        )

    def _silent(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self.address} does not answer at {self.url}: {str(error) or type(error).__name__}.",
            f"Check that the server runs and that {BASE_URL} is right.",
        )


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """Return what was asked for as fields of the OpenAI protocol, without the limit and what is as always."""
    fields: dict[str, Any] = {"temperature": sampling.temperature}
    if sampling.top_p != 1.0:
        fields["top_p"] = sampling.top_p
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(sampling, name):
            fields[name] = getattr(sampling, name)
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    return fields


def _client() -> httpx.AsyncClient:
    """Return the pool of connections of this event loop; how many there are is up to who bounds the calls."""
    import httpx

    loop = asyncio.get_running_loop()
    if loop not in _clients:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        _clients[loop] = httpx.AsyncClient(limits=limits)
    return _clients[loop]


def _parse(address: str, text: str | bytes) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{address} broke its answer off: {error}.", "Ask again.") from error
    if not isinstance(body, dict):
        raise ModelError(f"{address} answered with {str(body)[:200]!r}, which is no object.", "Ask again.")
    if body.get("error"):
        raise ModelError(f"{address} broke its answer off: {str(body['error'])[:200]}.", "Ask again.")
    return body


def _add(whole: dict[str, Any], chunk: Mapping[str, Any]) -> str:
    """Add a chunk of a stream to the whole answer and return its text."""
    if chunk.get("usage"):
        whole["usage"] = chunk["usage"]
    choices = chunk.get("choices") or []
    if not choices:
        return ""
    choice, kept = choices[0], whole["choices"][0]
    piece = (choice.get("delta") or {}).get("content") or ""
    kept["message"]["content"] += piece
    kept["finish_reason"] = choice.get("finish_reason") or kept["finish_reason"]
    return str(piece)
