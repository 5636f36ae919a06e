"""Remembers prompts that were read, so that the next one with the same beginning starts further on.

Does not know what the beginnings are: a persona's system prompt and the earlier turns of a conversation
are found alike, as the longest run of equal tokens under the same adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.local.kv import GRAIN, PromptMemory
from agents.local.routing import Adapter

KEPT_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class _Entry:
    adapter: Adapter | None
    ids: NDArray[np.int64]
    memory: PromptMemory


class Prefixes:
    """The prompts read last, up to KEPT_TOKENS tokens together."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def remember(self, ids: Sequence[int], adapter: Adapter | None, memory: PromptMemory) -> None:
        """Keep the memory of a prompt that has been read; it must not change any more."""
        self._entries.append(_Entry(adapter, np.array(ids, dtype=np.int64), memory))
        while sum(len(entry.ids) for entry in self._entries) > KEPT_TOKENS:
            self._entries.pop(0)

    def start(self, ids: Sequence[int], adapter: Adapter | None, limit: int, memory: PromptMemory) -> None:
        """Fill an empty memory with the longest known beginning of `ids`, in whole grains below `limit`."""
        wanted = np.array(ids[:limit], dtype=np.int64)
        best, length = None, GRAIN - 1
        for entry in self._entries:
            if entry.adapter is adapter and (common := _common(wanted, entry.ids)) > length:
                best, length = entry, common
        if best is not None:
            memory.copy_from(best.memory, length // GRAIN * GRAIN)
            self._entries.remove(best)
            self._entries.append(best)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Return how many tokens two sequences share from the start."""
    size = min(len(one), len(other))
    different = np.flatnonzero(one[:size] != other[:size])
    return int(different[0]) if len(different) else size
