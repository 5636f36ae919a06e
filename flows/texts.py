"""Reports as Markdown: the decision first, then the evidence.

Does not know where the text is shown.
"""

from __future__ import annotations

from tasks.evaluation.report import EvaluationReport, Side
from tasks.promote import PromotionReport


def evaluation_text(report: EvaluationReport) -> str:
    """Return an evaluation as Markdown, a loss as plainly as a win."""
    return "\n".join(
        [
            f"**{headline(report)}**",
            "",
            f"{report.prompts} held-out prompts, judge {report.judge}: {tally(report)}.",
            f"Score {report.score or 'none'}{_elo(report)}.",
            "",
            "| | candidate | baseline |",
            "|---|---|---|",
            *_rows(report),
            "",
            _similarity(report),
        ]
    )


def headline(report: EvaluationReport, candidate: str = "the candidate") -> str:
    """Return better, worse or can't tell, in one sentence."""
    if report.score is None:
        return "Can't tell: no verdict was valid."
    if report.score.low > 0.5:
        return f"Better: {candidate} wins {report.score.mean:.0%} of the comparisons."
    if report.score.high < 0.5:
        return f"Worse: {candidate} wins only {report.score.mean:.0%} of the comparisons."
    return f"Can't tell: {candidate} wins {report.score.mean:.0%}, which may be chance."


def tally(report: EvaluationReport) -> str:
    """Return wins, losses and ties, and what did not count, as words."""
    counts = {"won": report.wins, "lost": report.losses, "tied": report.ties}
    odd = {"without a valid verdict": report.invalid, "flipped with the order": report.flips}
    named = [f"{count} {name}" for name, count in counts.items()]
    return ", ".join(named + [f"{count} {name}" for name, count in odd.items() if count])


def figures(side: Side) -> dict[str, str]:
    """Return the figures of one model as they are shown, by what they are called."""
    return {
        "perplexity of the real answers": f"{side.perplexity:.2f}",
        "similarity to the real answers": f"{side.similarity:.3f}",
        "validation pass rate": f"{side.validation_pass_rate:.0%}",
        "length over the real answers": f"{side.length_ratio:.2f}",
        "cut at the token limit": f"{side.unfinished:.0%}",
    }


def promotion_text(report: PromotionReport) -> str:
    """Return the gate's decision as Markdown with every check."""
    lines = [
        _decided(report),
        "",
        "| check | value | threshold | verdict |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {check.name} | {check.value} | {check.threshold} | {check.verdict} |"
        for check in report.decision.checks
    ]
    if report.state == "waiting":
        lines += ["", f"It waits for a person: `understudy approve {report.version}` or `reject`."]
    if report.decision.prompts_needed:
        lines += ["", f"About {report.decision.prompts_needed} held-out prompts would settle it."]
    return "\n".join(lines)


def _decided(report: PromotionReport) -> str:
    decided = f"{report.version}: {report.decision.verdict}, {report.state}{_answer(report)}."
    return f"**{decided}** On stage: {report.live or 'nothing yet'}."


def _answer(report: PromotionReport) -> str:
    said = f" by {report.by}" if report.by else ""
    return f"{said} ({report.note})" if report.note else said


def _rows(report: EvaluationReport) -> list[str]:
    ours, theirs = report.candidate, report.baseline
    shown = {"model": (ours.model, theirs.model)}
    for (name, candidate), baseline in zip(figures(ours).items(), figures(theirs).values(), strict=True):
        shown[name] = (candidate, baseline)
    return [f"| {name} | {candidate} | {baseline} |" for name, (candidate, baseline) in shown.items()]


def _elo(report: EvaluationReport) -> str:
    if report.elo is None:
        return ""
    mean, low, high = report.elo
    return f", Elo {mean:+.0f} [{low:+.0f}, {high:+.0f}]"


def _similarity(report: EvaluationReport) -> str:
    floor = f"the same person's answers to other questions reach {report.similarity_floor:.3f}"
    return f"Similarity gain {report.similarity_gain}; {floor}."
