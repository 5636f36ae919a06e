"""Token ids to text, piece by piece: whole characters only, and never a part of a stop string.

Does not know who listens; the pieces join exactly to the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\ufffd"


class TextStream:
    """The text of one answer as its tokens come in."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(word for word in stop if word)
        self._ids: list[int] = []
        self._context = 0
        self._read = 0
        self._held = ""
        self._released: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """Return what was released so far."""
        return "".join(self._released)

    def push(self, token: int) -> str:
        """Take a token; return the text that it makes certain, which may be empty."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._read])
        after = self._decode(self._ids[self._context :])
        if after.endswith(_INCOMPLETE):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._release(after[len(before) :])

    def finish(self) -> str:
        """Return what was held back; a character of which only a part came is dropped."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._context : self._read])
        after = self._decode(self._ids[self._context :])
        self._read = len(self._ids)
        rest = self._release(after[len(before) :].rstrip(_INCOMPLETE))
        if not self.stopped:
            rest += self._held
            self._released.append(self._held)
            self._held = ""
        return rest

    def _release(self, piece: str) -> str:
        text = self._held + piece
        hits = [at for at in (text.find(word) for word in self._stop) if at >= 0]
        self.stopped = bool(hits)
        end = min(hits) if hits else len(text) - self._doubtful(text)
        self._held = "" if hits else text[end:]
        self._released.append(text[:end])
        return text[:end]

    def _doubtful(self, text: str) -> int:
        """Return how many characters at the end could be the beginning of a stop string."""
        return max(
            (
                size
                for word in self._stop
                for size in range(1, min(len(word), len(text) + 1))
                if text.endswith(word[:size])
            ),
            default=0,
        )

    def _decode(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
