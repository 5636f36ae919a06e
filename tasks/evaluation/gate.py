"""The gate: whether a candidate may go on stage, with every check and its value.

Does not know how to promote. Three verdicts; only `pass` promotes.
"""

from __future__ import annotations

from typing import Literal

from agents.schemas import Frozen, QualityThresholds
from tasks.evaluation.intervals import prompts_needed
from tasks.evaluation.report import EvaluationReport

GateVerdict = Literal["pass", "fail", "inconclusive"]


class Check(Frozen):
    """One threshold held against its value; `verdict` is this check's own."""

    name: str
    value: str
    threshold: str
    verdict: GateVerdict


class Decision(Frozen):
    """The verdict of all checks, and what would settle it if it is inconclusive."""

    verdict: GateVerdict
    checks: tuple[Check, ...]
    prompts_needed: int | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the checks that stand in the way, or all of them when it passed."""
        shown = [c for c in self.checks if c.verdict != "pass"] or list(self.checks)
        return tuple(f"{c.name} {c.value}, threshold {c.threshold}: {c.verdict}" for c in shown)


def decide(report: EvaluationReport, thresholds: QualityThresholds) -> Decision:
    """Hold a report against a persona's thresholds.

    Any failed check fails; otherwise any inconclusive one is inconclusive; otherwise it passes.
    """
    checks = (
        _enough(report, thresholds),
        _win_rate(report, thresholds),
        _validation(report, thresholds),
        _validation_drop(report, thresholds),
        _similarity(report, thresholds),
        _perplexity(report, thresholds),
    )
    verdicts = {check.verdict for check in checks}
    verdict: GateVerdict = "pass"
    if "fail" in verdicts:
        verdict = "fail"
    elif "inconclusive" in verdicts:
        verdict = "inconclusive"
    needed = None
    if verdict == "inconclusive":
        needed = max(thresholds.min_prompts, _needed(report, thresholds) or 0) or None
    return Decision(verdict=verdict, checks=checks, prompts_needed=needed)


def _needed(report: EvaluationReport, thresholds: QualityThresholds) -> int | None:
    return prompts_needed(report.scores, thresholds.min_win_rate_lower_bound) if report.scores else None


def _check(name: str, value: str, threshold: str, *, passed: bool) -> Check:
    return Check(name=name, value=value, threshold=threshold, verdict="pass" if passed else "fail")


def _enough(report: EvaluationReport, thresholds: QualityThresholds) -> Check:
    valid = report.prompts - report.invalid
    return Check(
        name="prompts judged",
        value=f"{valid} of {report.prompts}",
        threshold=f"at least {thresholds.min_prompts}",
        verdict="pass" if valid >= thresholds.min_prompts else "inconclusive",
    )


def _win_rate(report: EvaluationReport, thresholds: QualityThresholds) -> Check:
    bound = thresholds.min_win_rate_lower_bound
    verdict: GateVerdict = "inconclusive"
    if report.score is not None and report.score.low > bound:
        verdict = "pass"
    elif report.score is not None and report.score.high < bound:
        verdict = "fail"
    return Check(
        name="win rate",
        value=str(report.score) if report.score else "no valid verdict",
        threshold=f"lower bound above {bound:g}",
        verdict=verdict,
    )


def _validation(report: EvaluationReport, thresholds: QualityThresholds) -> Check:
    rate = report.candidate.validation_pass_rate
    return _check(
        "validation pass rate",
        f"{rate:.0%}",
        f"at least {thresholds.min_validation_pass_rate:.0%}",
        passed=rate >= thresholds.min_validation_pass_rate,
    )


def _validation_drop(report: EvaluationReport, thresholds: QualityThresholds) -> Check:
    drop = report.baseline.validation_pass_rate - report.candidate.validation_pass_rate
    return _check(
        "validation drop",
        f"{drop:+.0%}",
        f"at most {thresholds.max_validation_drop:.0%}",
        passed=drop <= thresholds.max_validation_drop,
    )


def _similarity(report: EvaluationReport, thresholds: QualityThresholds) -> Check:
    gain = report.similarity_gain
    return _check(
        "similarity gain",
        str(gain),
        f"mean at least {thresholds.min_similarity_gain:g}",
        passed=gain.mean >= thresholds.min_similarity_gain,
    )


def _perplexity(report: EvaluationReport, thresholds: QualityThresholds) -> Check:
    ratio = report.candidate.perplexity / report.baseline.perplexity
    return _check(
        "perplexity ratio",
        f"{ratio:.3f}",
        f"at most {thresholds.max_perplexity_ratio:g}",
        passed=ratio <= thresholds.max_perplexity_ratio,
    )
