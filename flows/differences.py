"""A diff as Markdown: the verdict and what changed in a few lines, biggest news first, then the evidence.

Does not know where the text is shown, nor how the evidence is laid out.
"""

from __future__ import annotations

from flows import evidence
from flows.texts import headline
from tasks.comparison.fields import FieldChange
from tasks.comparison.report import VersionDiff

STEPS = {"first": "First version", "major": "Major step", "minor": "Minor step", "patch": "Patch"}
VERDICTS = {"pass": "passed", "fail": "refused", "inconclusive": "undecided"}


def diff_text(diff: VersionDiff) -> str:
    """Return a diff as Markdown; what did not change is named once and has no section."""
    sections = [
        _title(diff),
        _glance(diff),
        *evidence.scores(diff),
        *evidence.questions(diff),
        *evidence.persona(diff),
        *evidence.examples(diff),
        *evidence.settings(diff),
        evidence.lineage(diff),
    ]
    return "\n\n".join(sections)


def _title(diff: VersionDiff) -> str:
    live = [side.name for side in (diff.before, diff.after) if side.live]
    stage = f"{live[0]} is live" if live else "Neither of the two is live"
    step = f"{STEPS[diff.step]}: {diff.why}"
    return f"# {diff.before.name} → {diff.after.name}\n\n**{step}. {stage}.**"


def _glance(diff: VersionDiff) -> str:
    news, same = [], []
    if diff.scores.direct:
        news.append(f"Head to head: {headline(diff.scores.after.report, diff.after.name)}")
    news += _gate(diff)
    for name, what in (
        ("base model", _base_news(diff)),
        ("persona", _persona_news(diff)),
        ("examples", _example_news(diff)),
        ("training settings", _settings_news(diff)),
    ):
        if what:
            news.append(f"{name.capitalize()}: {what}")
        else:
            same.append(name)
    return evidence.bullets([*news, *([f"Unchanged: {', '.join(same)}"] if same else [])])


def _gate(diff: VersionDiff) -> list[str]:
    """Return what the gate said of both, with the reasons where it did not let the newer one through."""
    sides = ((diff.after, diff.scores.after), (diff.before, diff.scores.before))
    said = [
        f"{side.name} {VERDICTS.get(side.gate, side.gate)} against {scored.against}"
        for side, scored in sides
        if side.gate and scored
    ]
    reasons = diff.after.reasons if diff.after.gate != "pass" else ()
    return ["\n  - ".join([f"Gate: {', '.join(said)}", *reasons])] if said else []


def _base_news(diff: VersionDiff) -> str:
    return f"{diff.before.base_model} → {diff.after.base_model}" if diff.base_model_changed else ""


def _persona_news(diff: VersionDiff) -> str:
    if diff.before.number is None:
        return "new"
    news = []
    if diff.prompt:
        added, removed = (sum(line.startswith(sign) for line in diff.prompt) for sign in "+-")
        news.append(f"system prompt +{added} −{removed} sentences")
    news += [change.field for change in diff.fields]
    if not news:
        return "redesigned" if diff.design_changed else ""
    return f"{'redesigned' if diff.design_changed else 'adjusted, same design'} ({', '.join(news)})"


def _example_news(diff: VersionDiff) -> str:
    if not diff.examples_changed:
        return ""
    sides = (("to learn from", diff.train), ("held out", diff.held_out))
    counts = [
        f"{name} {changes.before} → {changes.after} (+{changes.added} −{changes.removed})"
        for name, changes in sides
        if changes.differ
    ]
    return "; ".join(counts) or "the same ones under other categories"


def _settings_news(diff: VersionDiff) -> str:
    return "new" if diff.before.number is None else ", ".join(map(_move, diff.settings))


def _move(change: FieldChange) -> str:
    return f"{change.field} {evidence.value(change.before)} → {evidence.value(change.after)}"
