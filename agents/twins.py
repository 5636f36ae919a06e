"""Texts that were kept, held so that a new one's nearest twin is found without reading them all.

Does not know what the texts are. Exact: two texts whose overlap reaches the threshold share one of their
first few runs of words in any order that is the same for both (prefix filtering: Chaudhuri et al., ICDE
2006; Bayardo et al., WWW 2007). The order is long runs first, since those are rare.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import lru_cache
from math import ceil

from agents.quality import SHINGLE, words

FindTwin = Callable[[str], str | None]


class Twins:
    """Texts by position; about 20 kB for one of 700 words."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.texts: dict[int, str] = {}
        self._runs: dict[int, array[int]] = {}
        self._positions: dict[int, list[int]] = {}

    def add(self, position: int, text: str) -> None:
        """Keep the text of a position; a position that is there stays as it was."""
        if position in self.texts:
            return
        runs = _runs(text)
        self.texts[position] = text
        self._runs[position] = array("q", runs)
        for run in runs[: self._first(len(runs))]:
            self._positions.setdefault(run, []).append(position)

    def nearest(self, text: str, *, besides: int | None = None) -> str | None:
        """Return the most similar text at or above the threshold, of another position, or None."""
        runs = _runs(text)
        whole = frozenset(runs)
        found = {
            position for run in runs[: self._first(len(runs))] for position in self._positions.get(run, ())
        }
        shares = {position: self._share(whole, position) for position in found - {besides}}
        best = max(sorted(shares), key=shares.__getitem__, default=None)
        return None if best is None or shares[best] < self.threshold else self.texts[best]

    def _first(self, count: int) -> int:
        """Return how many of a text's runs cannot all be missing from a twin."""
        return count - ceil(self.threshold * count - 1e-9) + 1 if count else 0

    def _share(self, runs: frozenset[int], position: int) -> float:
        """Return the overlap with a text, 0 where its length alone rules out the threshold."""
        others = self._runs[position]
        few, many = sorted((len(runs), len(others)))
        if few < self.threshold * many - 1e-9:
            return 0.0
        both = len(runs.intersection(others))
        return both / (few + many - both)


@lru_cache(maxsize=64)  # a text that is accepted is held against the others first
def _runs(text: str) -> tuple[int, ...]:
    """Return the distinct runs of words of a text as hashes, the longest first."""
    said = words(text)
    size = min(SHINGLE, len(said))
    runs = {said[at : at + size] for at in range(len(said) - size + 1)} if size else set()
    return tuple(run for _, run in sorted((-sum(map(len, run)), hash(run)) for run in runs))
