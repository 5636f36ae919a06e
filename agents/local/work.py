"""The two kinds of work an engine does: writing an answer, and scoring one that is given.

Does not know the batch or the thread it runs in; whoever waits is behind a Listener.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

from agents.chat import ChatAnswer, ChatDelta, FinishReason, Sampling, TextScore, Usage
from agents.errors import UnderstudyError
from agents.local.kv import PromptMemory
from agents.local.pieces import TextStream
from agents.local.routing import Adapter
from agents.local.sampling import Sampler

_SCORED_AT_ONCE = 64


News_contra = TypeVar("News_contra", contravariant=True)


class Listener(Protocol[News_contra]):
    """Whoever waits for the work; called from the engine's thread."""

    gone: bool
    """Nobody waits any more: the work may be dropped."""

    wants_pieces: bool
    """Text is to be sent as it comes, not only at the end."""

    def hear(self, news: News_contra | UnderstudyError) -> None:
        """Take a piece, the result or an error; the last two end the work."""


class Generation:
    """One answer being written."""

    def __init__(
        self,
        ids: Sequence[int],
        adapter: Adapter | None,
        listener: Listener[ChatDelta],
        *,
        sampling: Sampling,
        tokenizer: Any,
        stop_ids: frozenset[int],
    ) -> None:
        self.ids = tuple(ids)
        self.adapter = adapter
        self.listener = listener
        self.sampler = Sampler(sampling)
        self.memory: PromptMemory | None = None
        self.last = self.ids[-1]
        self.position = len(self.ids) - 1
        self._stream = TextStream(tokenizer, sampling.stop)
        self._stop_ids = stop_ids
        self._submitted = time.perf_counter()

    @property
    def reusable(self) -> int:
        """Return how many tokens may come from another prompt's memory: all but the last."""
        return len(self.ids) - 1

    @property
    def reserved(self) -> int:
        """Return how many tokens prompt and answer may come to."""
        return len(self.ids) + self.sampler.sampling.max_tokens

    def wanted(self, start: int, stop: int) -> list[int]:
        """Return the positions in this part of the prompt whose logits are needed."""
        return [stop - 1] if stop == len(self.ids) else []

    def take(self, token: int) -> bool:
        """Take the next token; return whether the answer goes on."""
        self.last = token
        self.position += 1
        if token in self._stop_ids:
            self._end("stop")
            return False
        piece = self._stream.push(token)
        if self._stream.stopped:
            self._end("stop", piece)
            return False
        if self._written == self.sampler.sampling.max_tokens:
            self._end("length", piece)
            return False
        if piece and self.listener.wants_pieces:
            self.listener.hear(ChatDelta(text=piece))
        return True

    @property
    def _written(self) -> int:
        return self.position + 1 - len(self.ids)

    def _end(self, reason: FinishReason, piece: str = "") -> None:
        piece += self._stream.finish()
        if self._stream.stopped:
            reason = "stop"
        answer = ChatAnswer(
            text=self._stream.text,
            finish_reason=reason,
            usage=Usage(prompt_tokens=len(self.ids), completion_tokens=self._written),
            seconds=time.perf_counter() - self._submitted,
        )
        self.listener.hear(ChatDelta(text=piece, answer=answer))


class Scoring:
    """One turn being scored: the log-probabilities of `ids` from `first` on."""

    def __init__(
        self, ids: Sequence[int], first: int, adapter: Adapter | None, listener: Listener[TextScore]
    ) -> None:
        self.ids = tuple(ids)
        self.adapter = adapter
        self.listener = listener
        self.memory: PromptMemory | None = None
        self._first = first
        self._scores: list[float] = []
        self._submitted = time.perf_counter()

    @property
    def reusable(self) -> int:
        """Return how many tokens may come from another prompt's memory: those before the first target's."""
        return self._first - 1

    @property
    def reserved(self) -> int:
        """Return how many tokens the text has."""
        return len(self.ids)

    def wanted(self, start: int, stop: int) -> list[int]:
        """Return the positions in this part of the text that predict a token to be scored."""
        return list(range(max(start, self._first - 1), min(stop, len(self.ids) - 1)))

    def take(self, positions: Sequence[int], logits: Tensor) -> None:
        """Score the tokens after these positions by their logits (positions, vocabulary)."""
        for at in range(0, len(positions), _SCORED_AT_ONCE):
            rows = logits[at : at + _SCORED_AT_ONCE].float()
            targets = [[self.ids[p + 1]] for p in positions[at : at + _SCORED_AT_ONCE]]
            chosen = rows.gather(1, rows.new_tensor(targets).long())[:, 0]
            self._scores += (chosen - rows.logsumexp(-1)).tolist()

    def finish(self) -> None:
        """Hand over the score."""
        seconds = time.perf_counter() - self._submitted
        self.listener.hear(TextScore(log_probabilities=tuple(self._scores), seconds=seconds))


Work = Generation | Scoring
