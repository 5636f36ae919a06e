"""The gate: three verdicts, every check in the record, only `pass` promotes."""

import pytest

from agents.schemas import QualityThresholds
from tasks.evaluation.gate import decide
from tasks.evaluation.intervals import mean_interval, score_interval
from tasks.evaluation.report import EvaluationReport, Side
from tasks.evaluation.versions import Change, change_of, next_number

THRESHOLDS = QualityThresholds()


def side(**changes: object) -> Side:
    figures = {
        "model": "m",
        "validation_pass_rate": 0.5,
        "perplexity": 10.0,
        "similarity": 0.5,
        "length_ratio": 1.0,
        "unfinished": 0.0,
        "seconds": 1.0,
    }
    return Side(**{**figures, **changes})


def report(
    scores: list[float],
    *,
    invalid: int = 0,
    gain: float = 0.1,
    ours: Side | None = None,
    theirs: Side | None = None,
) -> EvaluationReport:
    return EvaluationReport(
        persona="jamie",
        judge="reference",
        dataset="d",
        prompts=len(scores) + invalid,
        wins=sum(s > 0.5 for s in scores),
        losses=sum(s < 0.5 for s in scores),
        ties=sum(s == 0.5 for s in scores),
        invalid=invalid,
        flips=0,
        score=score_interval(scores) if scores else None,
        scores=tuple(scores),
        similarity_gain=mean_interval([gain, gain + 0.01, gain - 0.01]),
        similarity_floor=0.3,
        candidate=ours or side(perplexity=5.0),
        baseline=side(),
        violations={},
    )


def test_a_clear_winner_passes_with_every_check_in_the_record() -> None:
    decision = decide(report([1.0] * 17 + [0.0, 0.5, 1.0]), THRESHOLDS)
    assert decision.verdict == "pass"
    assert [check.name for check in decision.checks] == [
        "prompts judged",
        "win rate",
        "validation pass rate",
        "validation drop",
        "similarity gain",
        "perplexity ratio",
    ]


def test_a_clear_loser_fails() -> None:
    decision = decide(report([0.0] * 18 + [1.0, 0.5]), THRESHOLDS)
    assert decision.verdict == "fail"
    assert "win rate" in decision.reasons[0]


def test_a_close_race_is_inconclusive_and_says_how_many_prompts_would_settle_it() -> None:
    decision = decide(report([1.0, 0.0] * 9 + [1.0, 1.0]), THRESHOLDS)
    assert decision.verdict == "inconclusive"
    assert decision.prompts_needed is not None
    assert decision.prompts_needed > 20


def test_too_few_valid_verdicts_are_inconclusive_even_when_all_are_wins() -> None:
    assert decide(report([1.0] * 6, invalid=20), THRESHOLDS).verdict == "inconclusive"
    assert decide(report([], invalid=20), THRESHOLDS).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("ours", "gain", "check"),
    [
        (side(perplexity=11.0), 0.1, "perplexity ratio"),
        (side(perplexity=5.0, validation_pass_rate=0.3), 0.1, "validation drop"),
        (side(perplexity=5.0), -0.2, "similarity gain"),
    ],
)
def test_harm_fails_a_winner(ours: Side, gain: float, check: str) -> None:
    decision = decide(report([1.0] * 20, ours=ours, gain=gain), THRESHOLDS)
    assert decision.verdict == "fail"
    assert [c.name for c in decision.checks if c.verdict == "fail"] == [check]


@pytest.mark.parametrize(
    ("numbers", "change", "expected"),
    [
        ([], "first", "0.1.0"),
        (["0.1.0"], "data", "0.1.1"),
        (["0.1.0"], "refresh", "0.1.1"),
        (["0.1.0", "0.1.1"], "improvement", "0.2.0"),
        (["0.9.0", "0.10.0"], "improvement", "0.11.0"),
        (["0.2.0"], "redesign", "1.0.0"),
    ],
)
def test_numbers_follow_the_kind_of_change(numbers: list[str], change: Change, expected: str) -> None:
    assert next_number(numbers, change) == expected


@pytest.mark.parametrize("improved", [True, False])
def test_what_changed_names_the_number(improved: bool) -> None:
    facts = {"first": False, "redesigned": False, "refreshed": False, "improved": improved}
    assert change_of(**facts) == ("improvement" if improved else "data")
    assert change_of(**facts | {"refreshed": True}) == "refresh"
    assert change_of(**facts | {"redesigned": True}) == "redesign"
    assert change_of(**facts | {"first": True}) == "first"
