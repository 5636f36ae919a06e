"""Means with confidence intervals, win rates and their Elo scale.

Does not know what was measured. The unit is always the prompt (facts: Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from pydantic import ConfigDict

from agents.schemas import Frozen


class Interval(Frozen):
    """A mean with the bounds of its two-sided 95 % confidence interval over `n` prompts."""

    model_config = ConfigDict(ser_json_inf_nan="strings")  # null, the default, could not be read back

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean with its t interval; one value has no interval, so its bounds are infinite."""
    n = len(values)
    mean = fmean(values)
    if n < 2:
        return Interval(mean=mean, low=-math.inf, high=math.inf, n=n)
    half = _t_quantile(n) * stdev(values) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def score_interval(scores: Sequence[float]) -> Interval:
    """Return the mean of scores in 0..1 with its interval, kept within 0..1.

    A t interval over prompts; where all scores agree and their spread says nothing, Wilson's.
    """
    if len(set(scores)) <= 1:
        return wilson_interval(fmean(scores), len(scores))
    interval = mean_interval(scores)
    return interval.model_copy(update={"low": max(0.0, interval.low), "high": min(1.0, interval.high)})


def wilson_interval(share: float, n: int) -> Interval:
    """Return a share of n with Wilson's 95 % score interval."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(
        mean=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)), n=n
    )


def elo(score: float) -> float:
    """Return a win rate as a difference on the Elo scale; 0 and 1 are infinite."""
    if score <= 0.0 or score >= 1.0:
        return math.copysign(math.inf, score - 0.5)
    return 400.0 * math.log10(score / (1.0 - score))


def prompts_needed(scores: Sequence[float], threshold: float) -> int | None:
    """Return how many prompts would put the lower bound above the threshold, were the mean to stay.

    None when no number would: the mean is not above it.
    """
    mean = fmean(scores)
    if mean <= threshold:
        return None
    spread = max(stdev(scores) if len(scores) > 1 else 0.5, 0.1)
    return max(len(scores) + 1, math.ceil((1.959964 * spread / (mean - threshold)) ** 2))


def _t_quantile(n: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1))
