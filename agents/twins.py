"""Texts that were kept, as hashes, so that what may be a new one's twin is found without reading them all.

Does not know the texts again, nor what they are: whoever asks compares the few candidates exactly.
Short texts are found for certain: two whose overlap reaches the threshold share one of their first few runs
of words in any order that is the same for both (prefix filtering: Chaudhuri et al., ICDE 2006). Longer ones
are found by MinHash in bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4): at the
threshold one in two thousand is missed, above it fewer.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from math import ceil, log, log1p

import numpy as np
from numpy.typing import NDArray

from agents.quality import SHINGLE, words

Hashes = NDArray[np.uint64]

SHORT = 16  # runs of words up to which a text is compared for certain
CHANCE = 0.13  # that a twin at the threshold shares one given band
MISS = 0.0005  # that it shares none
STEEPEST = 0.95  # of thresholds that bands are made for
BUFFER = 512  # texts that are held in a dict before they are packed
HALF = np.uint64(32)
SPREAD = np.uint64(0x9E3779B97F4A7C15)


class Twins:
    """Hashes of texts by position: about 0.5 kB a text, whatever its length."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._known = bytearray()  # a one for each position that has a text
        self._short: dict[int, list[int]] = {}
        self._bands = Bands(min(threshold, STEEPEST))

    def __contains__(self, position: int) -> bool:
        """Tell whether the position has a text."""
        return position < len(self._known) and self._known[position] == 1

    def add(self, position: int, text: str) -> None:
        """Keep the text of a position; a position that is there stays as it was."""
        if position in self:
            return
        self._known.extend(bytes(max(0, position + 1 - len(self._known))))
        self._known[position] = 1
        runs = _runs(text)
        if len(runs) <= SHORT / self.threshold:
            for run in _first(runs, self.threshold):
                self._short.setdefault(run, []).append(position)
        if len(runs) > SHORT:
            self._bands.add(position, runs)

    def candidates(self, text: str) -> set[int]:
        """Return the positions whose texts may reach the threshold, most others left out."""
        runs = _runs(text)
        found: set[int] = set()
        if len(runs) <= SHORT / self.threshold:
            found.update(at for run in _first(runs, self.threshold) for at in self._short.get(run, ()))
        if len(runs) > SHORT:
            found |= self._bands.find(runs)
        return found


class Bands:
    """MinHash signatures in bands: a band of a text is a number of 64 bits, the lower half its position."""

    def __init__(self, threshold: float) -> None:
        self.rows = max(1, round(log(CHANCE) / log(threshold)))
        self.bands = ceil(log(MISS) / log1p(-(threshold**self.rows)))
        pick = np.random.default_rng(self.rows)
        self._factors = pick.integers(0, 2**64, self.rows * self.bands, np.uint64) | np.uint64(1)
        self._places = pick.integers(0, 2**64, (self.bands, self.rows), np.uint64) | np.uint64(1)
        self._new: dict[int, list[int]] = {}
        self._added = 0
        self._packed: list[Hashes] = []  # sorted, each at least as long as the next

    def add(self, position: int, runs: tuple[int, ...]) -> None:
        """Keep the signature of a position's text."""
        for key in self._keys(runs).tolist():
            self._new.setdefault(key, []).append(position)
        self._added += 1
        if self._added >= BUFFER:
            self._pack()

    def find(self, runs: tuple[int, ...]) -> set[int]:
        """Return the positions that share a band with a text."""
        keys = self._keys(runs)
        found = {at for key in keys.tolist() for at in self._new.get(key, ())}
        for packed in self._packed:
            starts = packed.searchsorted(keys << HALF)
            ends = packed.searchsorted((keys + np.uint64(1)) << HALF)
            for start, end in zip(starts[starts < ends], ends[starts < ends], strict=True):
                found.update((packed[start:end] & np.uint64(2**32 - 1)).tolist())
        return found

    def _keys(self, runs: tuple[int, ...]) -> Hashes:
        """Return one number below 2³² − 1 a band."""
        mixed = np.asarray(runs, np.uint64)[:, None] * self._factors
        least = mixed.min(axis=0).reshape(self.bands, self.rows)
        keys: Hashes = ((least ^ (least >> HALF)) * self._places).sum(
            axis=1, dtype=np.uint64
        ) * SPREAD >> HALF
        return np.minimum(keys, np.uint64(2**32 - 2))

    def _pack(self) -> None:
        """Move what is new into sorted arrays, merging those that have grown to one size."""
        new = [key << 32 | position for key, found in self._new.items() for position in found]
        self._packed.append(np.sort(np.array(new, np.uint64)))
        self._new, self._added = {}, 0
        while len(self._packed) > 1 and len(self._packed[-2]) < 2 * len(self._packed[-1]):
            both = np.concatenate([self._packed.pop(), self._packed.pop()])
            both.sort(kind="stable")
            self._packed.append(both)


def _first(runs: tuple[int, ...], threshold: float) -> tuple[int, ...]:
    """Return the runs of a text that cannot all be missing from a twin, the longest first."""
    return runs[: len(runs) - ceil(threshold * len(runs) - 1e-9) + 1] if runs else ()


@lru_cache(maxsize=64)  # a text that is accepted is held against the others first
def _runs(text: str) -> tuple[int, ...]:
    """Return the distinct runs of words of a text as hashes, the longest first, the same in every process."""
    said = words(text)
    size = min(SHINGLE, len(said))
    runs = {said[at : at + size] for at in range(len(said) - size + 1)} if size else set()
    return tuple(run for _, run in sorted((-sum(map(len, run)), _hash(run)) for run in runs))


def _hash(run: tuple[str, ...]) -> int:
    mixed = 0
    for word in run:
        mixed = (mixed * 0x100000001B3 + _word(word)) % 2**64
    return mixed


@lru_cache(maxsize=32768)
def _word(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
