"""Whole numbers that add up: exact sums, each number next to its share, both margins met."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.counts import Margins, fit_table, largest_remainder
from agents.errors import InputError


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any), st.integers(0, 100_000))
def test_rounding_sums_exactly_and_stays_next_to_each_share(weights: list[int], total: int) -> None:
    quotas = [Fraction(weight * total, sum(weights)) for weight in weights]
    counts = largest_remainder(quotas, total)
    assert sum(counts) == total
    assert all(floor(quota) <= count <= ceil(quota) for quota, count in zip(quotas, counts, strict=True))


def test_the_largest_remainders_go_up_and_the_earlier_of_equal_ones() -> None:
    assert largest_remainder([Fraction(3, 2), Fraction(3, 2), Fraction(1)], 4) == (2, 1, 1)
    assert largest_remainder([Fraction(12, 10), Fraction(19, 10), Fraction(9, 10)], 4) == (1, 2, 1)


def test_quotas_that_rounding_cannot_bring_to_a_total_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 2 cannot be rounded to 4"):
        largest_remainder([Fraction(1), Fraction(1)], 4)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[int], Margins]:
    """Draw seeds of some cells, and margins that another table of the same cells has."""
    cells = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=25))
    rows = tuple(f"row {row}" for row, _ in cells)
    columns = tuple(f"column {column}" for _, column in cells)
    counts = st.lists(st.integers(1, 200), min_size=len(cells), max_size=len(cells))
    seeds, other = draw(counts), draw(counts)
    return seeds, Margins(rows, columns, sums(rows, other), sums(columns, other))


def sums(names: tuple[str, ...], counts: list[int] | tuple[int, ...]) -> dict[str, int]:
    totals = dict.fromkeys(names, 0)
    for name, count in zip(names, counts, strict=True):
        totals[name] += count
    return totals


@given(tables())
def test_a_fitted_table_meets_both_margins_exactly(table: tuple[list[int], Margins]) -> None:
    seeds, margins = table
    counts = fit_table(seeds, margins)
    assert sums(margins.rows, counts) == margins.row_totals
    assert sums(margins.columns, counts) == margins.column_totals
    assert min(counts) >= 0


@given(tables())
def test_a_table_that_fits_already_is_left_alone(table: tuple[list[int], Margins]) -> None:
    seeds, margins = table
    own = Margins(margins.rows, margins.columns, sums(margins.rows, seeds), sums(margins.columns, seeds))
    assert fit_table(seeds, own) == tuple(seeds)


def test_a_known_table_comes_out_as_proportional_fitting_has_it() -> None:
    margins = Margins(("a", "a", "b", "b"), ("x", "y", "x", "y"), {"a": 30, "b": 70}, {"x": 40, "y": 60})
    assert fit_table([1, 1, 1, 1], margins) == (12, 18, 28, 42)


def test_margins_that_no_table_has_are_refused_with_the_sums() -> None:
    with pytest.raises(InputError, match="rows are to sum to 3 and the columns to 4"):
        fit_table([1, 1], Margins(("a", "b"), ("x", "x"), {"a": 1, "b": 2}, {"x": 4}))
    with pytest.raises(InputError, match=r"a comes to .*, not 5"):
        fit_table([1, 1], Margins(("a", "b"), ("x", "y"), {"a": 5, "b": 1}, {"x": 3, "y": 3}))
