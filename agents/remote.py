"""Models of remote providers through litellm: `anthropic/…`, `openrouter/…`, `gemini/…`, `together_ai/…`.

The only door to litellm, which is imported when a model is first called: what must be known before (names,
prices, windows, keys) is read from the table in its package. Does not retry and does not wait for its turn:
litellm's own retries are off, save that its transport opens one new connection where one breaks off. Keys
and base URLs come from the variables that litellm documents.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agents.chat import (
    ChatAnswer,
    ChatDelta,
    ChatRequest,
    FinishReason,
    ModelAddress,
    ModelPlaces,
    Tariff,
    TextScore,
    Usage,
)
from agents.compatible import WINDOW, estimate_tokens, sampling_fields
from agents.errors import InputError, KeyMissing, ModelError, NotFound, RequestRefused, UnderstudyError
from agents.refusals import refusal
from agents.schemas import Messages

KEYS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY"),
    "groq": ("GROQ_API_KEY",),
    "mistral": ("MISTRAL_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "xai": ("XAI_API_KEY",),
    "fireworks_ai": ("FIREWORKS_API_KEY",),
    "ollama_chat": (),
}
BASES = {"ollama_chat": "OLLAMA_API_BASE", "together_ai": "TOGETHERAI_API_BASE"}
CLOSED = ("anthropic", "openrouter", "gemini")
"""Providers whose models are all in the table; the others also serve models of one's own."""
TABLE = "model_prices_and_context_window_backup.json"
SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}
ENDS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}
PER_MILLION = 1_000_000


def open_remote(address: ModelAddress, places: ModelPlaces) -> RemoteModel:
    """Open a remote model; nothing is sent, and litellm is not imported yet.

    Raises KeyMissing naming the variable, NotFound for a model that is neither in litellm's table nor has a
    tariff where the provider has no models of one's own, InputError for an adapter or without litellm.
    """
    name = str(address)
    if address.adapter:
        raise InputError(
            f"{name} names an adapter.", "Remote models go by the name their provider gave them."
        )
    keys = KEYS.get(address.provider, ())
    key = next((places.variables[variable] for variable in keys if places.variables.get(variable)), None)
    if keys and key is None:
        raise KeyMissing(f"{name} needs a key.", f"Set {keys[0]}.")
    card, tariff = model_card(address), places.tariffs.get(name)
    if card is None and tariff is None and address.provider in CLOSED:
        near = [
            f"{address.provider}/{close.removeprefix(f'{address.provider}/')}" for close in _near(address)
        ]
        raise NotFound(
            f"litellm's table has no model {name}.",
            f"Close: {', '.join(near) or 'none'}. A price in UNDERSTUDY_PRICES makes it known.",
        )
    base = places.variables.get(BASES.get(address.provider, f"{address.provider.upper()}_API_BASE"))
    return RemoteModel(address, key, base, places.timeout, tariff or card_tariff(card), card or {})


def model_card(address: ModelAddress) -> Mapping[str, Any] | None:
    """Return what litellm's table says of a model: window, prices, abilities; None when it is not in it."""
    table = _table()
    card = table.get(str(address))
    if card is None:
        card = table.get(address.name)
        if card is not None and card.get("litellm_provider") != address.provider:
            card = None
    return card


def card_tariff(card: Mapping[str, Any] | None) -> Tariff | None:
    """Return the prices of a card, None when it has none."""
    read, written = (card or {}).get("input_cost_per_token"), (card or {}).get("output_cost_per_token")
    if read is None or written is None:
        return None
    return Tariff(prompt=read * PER_MILLION, completion=written * PER_MILLION)


@dataclass(frozen=True)
class RemoteModel:
    """A model of a remote provider."""

    called: ModelAddress
    key: str | None
    base: str | None
    timeout: float
    tariff: Tariff | None
    card: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"RemoteModel({self.address!r})"

    @property
    def address(self) -> str:
        """Return the address that opens this model."""
        return str(self.called)

    @property
    def context_window(self) -> int:
        """Return what litellm's table says, else what is assumed: the provider refuses what is too long."""
        return int(self.card.get("max_input_tokens") or WINDOW)

    def count_tokens(self, messages: Messages) -> int:
        """Return an estimate, as `estimate_tokens` says: the tokenizers of remote models are not here."""
        return estimate_tokens(messages)

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Answer the request; errors are as `refusal` says."""
        started = time.monotonic()
        try:
            response = await _library().acompletion(**self._fields(request))
        except Exception as error:
            raise self._meant(error) from error
        choice = response.choices[0]
        usage = response.usage
        text = choice.message.content or ""
        return self._answer(text, choice.finish_reason, usage, time.monotonic() - started)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Yield the answer piece by piece."""
        started, pieces, reason, usage = time.monotonic(), [], None, None
        fields = self._fields(request) | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async for chunk in await _library().acompletion(**fields):
                usage = getattr(chunk, "usage", None) or usage
                for choice in chunk.choices[:1]:
                    reason = choice.finish_reason or reason
                    if choice.delta.content:
                        pieces.append(choice.delta.content)
                        yield ChatDelta(text=choice.delta.content)
        except Exception as error:
            raise self._meant(error) from error
        answer = self._answer("".join(pieces), reason, usage, time.monotonic() - started)
        yield ChatDelta(text="", answer=answer)

    async def score(self, messages: Messages) -> TextScore:
        """Refuse: remote providers give no log-probabilities of a text that is there already."""
        raise RequestRefused(f"{self.address} cannot score a given text.", "Score with a local model.")

    def _fields(self, request: ChatRequest) -> dict[str, Any]:
        sampling = sampling_fields(request.sampling)
        return {
            "model": self.address,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "max_tokens": request.sampling.max_tokens,
            **{name: value for name, value in sampling.items() if name in _taken(self.called)},
            "timeout": self.timeout,
            "num_retries": 0,
            "max_retries": 0,
            "api_key": self.key,
            "api_base": self.base,
        }

    def _answer(self, text: str, reason: str | None, told: Any, seconds: float) -> ChatAnswer:
        if reason == "content_filter":
            raise RequestRefused(f"{self.address} filtered its answer.", "Word the request differently.")
        if reason is None or reason not in ENDS or told is None:
            raise ModelError(f"{self.address} broke its answer off: it ended with {reason!r}.", "Ask again.")
        usage = Usage(prompt_tokens=told.prompt_tokens, completion_tokens=told.completion_tokens)
        cost = getattr(told, "cost", None)
        if cost is None and self.tariff is not None:
            cost = self.tariff.cost(usage)
        return ChatAnswer(text=text, finish_reason=ENDS[reason], usage=usage, seconds=seconds, cost=cost)

    def _meant(self, error: Exception) -> UnderstudyError:
        """Return the error that one of litellm's means; raise what is none of its kind as it is."""
        import litellm
        from openai import OpenAIError

        if not isinstance(error, OpenAIError):
            raise error
        status = int(getattr(error, "status_code", None) or 500)
        if isinstance(error, litellm.ContextWindowExceededError):
            status = 413
        elif isinstance(error, litellm.Timeout):
            status = 408
        response = getattr(error, "response", None)
        headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None)
        return refusal(self.address, status, str(error), headers or {})


@cache
def _table() -> dict[str, dict[str, Any]]:
    found = find_spec("litellm")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "Remote models need litellm, which is not installed.", "pip install 'understudy[remote]'."
        )
    table: dict[str, dict[str, Any]] = json.loads(
        Path(found.submodule_search_locations[0], TABLE).read_text(encoding="utf-8")
    )
    return table


def _near(address: ModelAddress) -> list[str]:
    """Return up to three names of the provider that are close to the one that was asked for."""
    names = [name for name, card in _table().items() if card.get("litellm_provider") == address.provider]
    wanted = str(address) if any(name.startswith(f"{address.provider}/") for name in names) else address.name
    return get_close_matches(wanted, names, n=3)


@cache
def _library() -> Any:
    """Import litellm so that it asks the network for nothing, prints nothing and leaves no session open."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = True
    return litellm


@cache
def _taken(address: ModelAddress) -> frozenset[str]:
    """Return which fields of sampling a model takes; Claude 5 and its kin refuse all that is drawn by."""
    taken = set(
        _library().get_supported_openai_params(model=address.name, custom_llm_provider=address.provider) or ()
    )
    kin = address.name.rsplit("/", 1)[-1].replace(".", "-")
    if any(_table().get(name, {}).get("supports_sampling_params") is False for name in (str(address), kin)):
        taken -= set(SAMPLING)
    return frozenset(taken)
