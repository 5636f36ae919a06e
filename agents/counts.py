"""Whole numbers that add up: quotas rounded to a total, a table fitted to the totals of its rows and columns.

Does not know what is counted. A table is a list of cells, each with the name of its row and of its column;
several cells may share both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf

from agents.errors import InputError

ROUNDS = 20_000
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Margins:
    """The row and the column of each cell, and what each row and column must add up to."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_totals: Mapping[str, int]
    column_totals: Mapping[str, int]


def largest_remainder(quotas: Sequence[Fraction], total: int) -> tuple[int, ...]:
    """Round quotas to whole numbers that sum to `total`: down, and up where the remainder is largest.

    Of equal remainders the earlier goes up. Raises ValueError when rounding alone cannot reach the total.
    """
    counts = [floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda at: counts[at] - quotas[at])
    up = [at for at in by_remainder if quotas[at] > counts[at]]
    left = total - sum(counts)
    if not 0 <= left <= len(up):
        raise ValueError(f"{len(quotas)} quotas that sum to {sum(quotas)} cannot be rounded to {total}")
    for at in up[:left]:
        counts[at] += 1
    return tuple(counts)


def fit_table(seeds: Sequence[int], margins: Margins) -> tuple[int, ...]:
    """Fit a table to both margins by iterative proportional fitting and round it to whole numbers.

    Every row and column then has its total exactly; of all such whole tables this is the nearest, in
    squares, to the fitted one, and cells of 0 stay 0. (Deming and Stephan, 1940.) Raises InputError,
    with the sums, when no table with these cells has these totals.
    """
    wanted = sum(margins.row_totals.values()), sum(margins.column_totals.values())
    if wanted[0] != wanted[1]:
        raise InputError(f"the rows are to sum to {wanted[0]} and the columns to {wanted[1]}")
    return _round_table(_scale_to_margins(seeds, margins), margins)


def _scale_to_margins(seeds: Sequence[int], margins: Margins) -> list[float]:
    values = [float(seed) for seed in seeds]
    for _ in range(ROUNDS):
        values = _scale(values, margins.rows, margins.row_totals)
        values = _scale(values, margins.columns, margins.column_totals)
        sums = _sums(values, margins.rows, margins.row_totals)
        if all(abs(sums[row] - total) <= TOLERANCE * total for row, total in margins.row_totals.items()):
            return values
    off = max(margins.row_totals, key=lambda row: abs(sums[row] - margins.row_totals[row]))
    raise InputError(
        f"no table with these cells has these totals: with the columns as asked, "
        f"{off} comes to {sums[off]:.1f}, not {margins.row_totals[off]}"
    )


def _scale(values: Sequence[float], names: Sequence[str], totals: Mapping[str, int]) -> list[float]:
    sums = _sums(values, names, totals)
    return [
        value * totals[name] / sums[name] if sums[name] else 0.0
        for value, name in zip(values, names, strict=True)
    ]


def _sums(values: Sequence[float], names: Sequence[str], totals: Mapping[str, int]) -> dict[str, float]:
    sums = dict.fromkeys(totals, 0.0)
    for value, name in zip(values, names, strict=True):
        sums[name] += value
    return sums


Node = tuple[str, str]
Arc = tuple[Node, Node, int, int, float]


def _round_table(values: Sequence[float], margins: Margins) -> tuple[int, ...]:
    """Round each value to the nearest, then mend the sums one unit at a time along the cheapest paths.

    A unit too many in a row or column travels to one that lacks it by raising and lowering cells in turn;
    taking the cheapest path each time keeps the whole the nearest table.
    """
    counts = [floor(value + 0.5) for value in values]
    excess: dict[Node, int] = {("row", row): total for row, total in margins.row_totals.items()}
    excess |= {("column", column): -total for column, total in margins.column_totals.items()}
    for count, row, column in zip(counts, margins.rows, margins.columns, strict=True):
        excess["row", row] -= count
        excess["column", column] += count
    while any(excess.values()):
        start, end, path = _cheapest_path(excess, _arcs(values, counts, margins))
        excess[start] -= 1
        excess[end] += 1
        for at, step in path:
            counts[at] += step
    return tuple(counts)


def _arcs(values: Sequence[float], counts: Sequence[int], margins: Margins) -> list[Arc]:
    """Return every way to change one cell by one: from node, to node, cell, step, added squared distance."""
    arcs: list[Arc] = []
    for at, (value, count) in enumerate(zip(values, counts, strict=True)):
        row, column = ("row", margins.rows[at]), ("column", margins.columns[at])
        if value > 0:
            arcs.append((row, column, at, 1, 1 + 2 * (count - value)))
        if count > 0:
            arcs.append((column, row, at, -1, 1 - 2 * (count - value)))
    return arcs


def _cheapest_path(
    excess: Mapping[Node, int], arcs: Sequence[Arc]
) -> tuple[Node, Node, list[tuple[int, int]]]:
    """Return the cheapest way from a node with too much to one with too little (Bellman and Ford)."""
    cost = {node: 0.0 if left > 0 else inf for node, left in excess.items()}
    came: dict[Node, Arc] = {}
    for _ in excess:
        for arc in arcs:
            if cost[arc[0]] + arc[4] < cost[arc[1]] - 1e-9:
                cost[arc[1]], came[arc[1]] = cost[arc[0]] + arc[4], arc
    end = min((node for node, left in excess.items() if left < 0), key=cost.__getitem__)
    node, path = end, []
    while node in came:
        arc = came[node]
        path.append((arc[2], arc[3]))
        node = arc[0]
    return node, end, path
