"""Intervals, Elo and the number of prompts that would settle a question."""

import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.intervals import (
    Interval,
    elo,
    mean_interval,
    prompts_needed,
    score_interval,
    wilson_interval,
)

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=60)


def test_t_interval_matches_a_published_example() -> None:
    # NIST/SEMATECH e-Handbook 1.3.5.2 (ZARR13): 195 values, mean 9.261460, sd 0.022789.
    half = 1.9723 * 0.022789 / math.sqrt(195)
    values = [9.261460 + 0.022789 * math.sqrt(194 / 195) * (1 if i % 2 else -1) for i in range(194)]
    interval = mean_interval([*values, 9.261460])
    assert interval.mean == pytest.approx(9.261460, abs=1e-6)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.01)


def test_wilson_matches_a_worked_example() -> None:
    # 8 of 10: Wilson's 95 % score interval is [0.4902, 0.9433] (Brown, Cai, DasGupta 2001, eq. 4).
    interval = wilson_interval(0.8, 10)
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-3)


@given(SCORES)
def test_score_interval_holds_its_mean_within_bounds(scores: list[float]) -> None:
    interval = score_interval(scores)
    assert 0.0 <= interval.low <= interval.mean <= interval.high <= 1.0
    assert interval.mean == pytest.approx(fmean(scores))


def test_all_wins_of_a_few_prompts_are_not_certainty() -> None:
    assert score_interval([1.0] * 5).low < 0.6
    assert score_interval([1.0] * 50).low > 0.9


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(1)
    hits = 0
    for _ in range(600):
        scores = [draw.choice([0.0, 0.5, 0.5, 1.0]) for _ in range(30)]
        interval = score_interval(scores)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.92 <= hits / 600 <= 0.98


def test_elo_scale() -> None:
    assert elo(0.5) == 0.0
    assert elo(0.6) == pytest.approx(70.4, abs=0.1)
    assert elo(0.6) == pytest.approx(-elo(0.4))
    assert elo(1.0) == math.inf
    assert elo(0.0) == -math.inf


def test_prompts_needed_is_none_for_a_loser_and_more_than_there_are_for_a_close_one() -> None:
    assert prompts_needed([0.0, 1.0, 0.0], 0.5) is None
    close = [1.0, 0.0] * 10 + [1.0]
    needed = prompts_needed(close, 0.5)
    assert needed is not None
    assert needed > len(close)


def test_an_interval_without_bounds_is_read_back_as_it_was_written() -> None:
    interval = mean_interval([0.5])
    assert Interval.model_validate_json(interval.model_dump_json()) == interval
