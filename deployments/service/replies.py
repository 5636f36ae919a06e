"""The shapes of the API's answers: models, completions, and the chunks of a streamed completion.

Does not know how an answer came about.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.chat import ChatAnswer, FinishReason
from deployments.service.catalog import ServedModel

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"


def model_json(served: ServedModel) -> Json:
    """Return a model object."""
    return {
        "id": served.id,
        "object": "model",
        "created": served.created,
        "owned_by": served.owned_by,
        "description": served.description,
    }


def event(content: Json) -> bytes:
    """Return one server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def usage_json(answers: Sequence[ChatAnswer]) -> Json:
    """Return what all choices took; their common prompt counts once."""
    prompt = answers[0].usage.prompt_tokens
    completion = sum(answer.usage.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@dataclass(frozen=True)
class Completion:
    """A completion under one id; every chunk of a stream carries the same id, time and model name."""

    model: str
    choices: int = 1
    with_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answers: Sequence[ChatAnswer]) -> Json:
        """Return the completion object, one choice per answer."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        return self._stamped("chat.completion", choices) | {"usage": usage_json(answers)}

    def opening(self) -> list[bytes]:
        """Return the first chunk of each choice."""
        return [
            self._chunk(index, {"role": "assistant", "content": ""}, None) for index in range(self.choices)
        ]

    def text(self, index: int, text: str) -> bytes:
        """Return a chunk that carries text."""
        return self._chunk(index, {"content": text}, None)

    def closing(self, index: int, reason: FinishReason) -> bytes:
        """Return the last chunk of a choice."""
        return self._chunk(index, {}, reason)

    def usage(self, answers: Sequence[ChatAnswer]) -> bytes:
        """Return the chunk after the last choice, which says what the answer took."""
        return event(self._stamped("chat.completion.chunk", []) | {"usage": usage_json(answers)})

    def _chunk(self, index: int, delta: Json, reason: FinishReason | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        no_usage_yet = {"usage": None} if self.with_usage else {}
        return event(self._stamped("chat.completion.chunk", [choice]) | no_usage_yet)

    def _stamped(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
