"""The seats of a simulation run: every conversation of a plan at its size, in an order mixed by the seed.

Does not know what happens at a seat. A position below the total is a seat; `seat + n * total` is the n-th
replacement for what was dropped there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from agents.plans import Cell, Plan
from agents.scenes import Scene, set_scene

REPLACEMENTS = 3
NEIGHBOURS = 100


@dataclass(frozen=True)
class Seats:
    """A plan at a size: the count of each cell, and of each seat its cell and its number within the cell."""

    plan: Plan
    counts: tuple[int, ...]
    seed: int
    of: tuple[tuple[int, int], ...]

    @property
    def total(self) -> int:
        """Return how many there are."""
        return len(self.of)

    def cell(self, position: int) -> Cell:
        """Return the cell that a position belongs to."""
        return self.plan.cells[self.of[position % self.total][0]]

    def scene(self, position: int) -> Scene:
        """Return the scene of a position; every replacement has another one."""
        replaced, seat = divmod(position, self.total)
        at, number = self.of[seat]
        cell = self.plan.cells[at]
        index = number + replaced * self.counts[at]
        return set_scene(self.plan.kinds, self.plan.kind(cell), cell.length, index=index, seed=self.seed)

    def neighbours(self, position: int) -> list[int]:
        """Return the other positions of the cell whose conversations could resemble this one's."""
        at, number = self.of[position % self.total]
        near = range(max(0, number - NEIGHBOURS), min(self.counts[at], number + NEIGHBOURS))
        place = _places(self.of)
        seats = [place[at, other] for other in near]
        every = [seat + n * self.total for n in range(REPLACEMENTS + 1) for seat in seats]
        return [other for other in every if other != position]


def lay_out(plan: Plan, total: int, seed: int) -> Seats:
    """Return the seats of a plan that is scaled to `total` conversations."""
    counts = plan.scaled(total)
    return Seats(plan=plan, counts=counts, seed=seed, of=_shuffled(counts, seed))


@lru_cache(maxsize=8)
def _shuffled(counts: tuple[int, ...], seed: int) -> tuple[tuple[int, int], ...]:
    seats = [(at, number) for at, count in enumerate(counts) for number in range(count)]
    random.Random(seed).shuffle(seats)  # noqa: S311  (an even mix of lengths in every shard)
    return tuple(seats)


@lru_cache(maxsize=8)
def _places(seats: tuple[tuple[int, int], ...]) -> dict[tuple[int, int], int]:
    return {seat: position for position, seat in enumerate(seats)}
