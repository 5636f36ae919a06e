"""What an evaluation found: the figures of candidate and baseline side by side.

Does not know how they were measured, nor what they decide.
"""

from __future__ import annotations

from pydantic import Field

from agents.schemas import Frozen
from tasks.evaluation.intervals import Interval, elo


class Side(Frozen):
    """The figures of one model on the held-out prompts.

    `perplexity` is of the person's real answers (lower is closer), `similarity` the mean cosine of the
    model's answers with them, `length_ratio` the answers' mean length over the real ones',
    `unfinished` the share of answers cut at the token limit, `seconds` the mean time of an answer.
    """

    model: str
    validation_pass_rate: float
    perplexity: float
    similarity: float
    length_ratio: float
    unfinished: float
    seconds: float


class EvaluationReport(Frozen):
    """A candidate against a baseline, prompt by prompt."""

    persona: str
    judge: str
    dataset: str
    prompts: int
    wins: int
    losses: int
    ties: int
    invalid: int
    flips: int
    score: Interval | None = Field(description="the candidate's mean score; None without a valid verdict")
    scores: tuple[float, ...]
    similarity_gain: Interval
    similarity_floor: float = Field(
        description="mean cosine of the person's own answers to other questions: topic alone"
    )
    candidate: Side
    baseline: Side
    violations: dict[str, int] = Field(description="broken rules of the candidate's answers by name")

    @property
    def elo(self) -> tuple[float, float, float] | None:
        """Return the difference to the baseline on the Elo scale with its bounds."""
        if self.score is None:
            return None
        return elo(self.score.mean), elo(self.score.low), elo(self.score.high)
