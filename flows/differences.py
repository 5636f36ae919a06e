"""A diff as Markdown: the verdict and what changed in a few lines, then the evidence, biggest news first.

Does not know where the text is shown; tables are padded, so that it reads well in a terminal too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flows.texts import figures, headline, tally
from tasks.comparison.examples import ExampleChanges, Sample, clip
from tasks.comparison.fields import FieldChange
from tasks.comparison.report import VersionDiff
from tasks.comparison.scores import Scored

ANSWER_CHARACTERS = 600
VALUE_CHARACTERS = 80
PAD = 48
STEPS = {"first": "First version", "major": "Major step", "minor": "Minor step", "patch": "Patch"}
VERDICTS = {"pass": "passed", "fail": "refused", "inconclusive": "undecided"}
ABSENT = "–"


def diff_text(diff: VersionDiff) -> str:
    """Return a diff as Markdown; what did not change is named once and has no section."""
    sections = [
        _title(diff),
        _glance(diff),
        *_scores(diff),
        *_questions(diff),
        *_persona(diff),
        *_examples(diff),
        *_settings(diff),
        _lineage(diff),
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
    return _bullets([*news, *([f"Unchanged: {', '.join(same)}"] if same else [])])


def _gate(diff: VersionDiff) -> list[str]:
    """Return what the gate said of both, with the reasons where it did not let the newer one through."""
    said = [
        f"{side.name} {VERDICTS.get(side.gate, side.gate)}" for side in (diff.after, diff.before) if side.gate
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
    return f"{'redesigned' if diff.design_changed else 'same design, adjusted'}: {', '.join(news)}"


def _example_news(diff: VersionDiff) -> str:
    sides = (("to learn from", diff.train), ("held out", diff.held_out))
    return "; ".join(
        f"{name} {changes.before} → {changes.after} (+{changes.added} −{changes.removed})"
        for name, changes in sides
        if changes.added or changes.removed
    )


def _settings_news(diff: VersionDiff) -> str:
    return "new" if diff.before.number is None else ", ".join(map(_move, diff.settings))


def _scores(diff: VersionDiff) -> list[str]:
    parts = ["## Scores"]
    if diff.scores.direct:
        parts += _head_to_head(diff)
    if diff.scores.before is not None or not diff.scores.direct:
        sides = {diff.before.name: diff.scores.before, diff.after.name: diff.scores.after}
        columns = {name: _own_figures(scored) for name, scored in sides.items() if scored}
        rows = [(name, *(own[name] for own in columns.values())) for name in columns[diff.after.name]]
        parts += ["Each in its own evaluation:", _grid(("", *columns), rows)]
    if diff.scores.notes:
        parts.append(_bullets(diff.scores.notes))
    return parts


def _head_to_head(diff: VersionDiff) -> list[str]:
    report = diff.scores.after.report
    ours, theirs = figures(report.baseline), figures(report.candidate)
    asked = f"Both on the same {report.prompts} held-out prompts"
    if diff.prompt and diff.before.number:
        asked += f" under the system prompt of {diff.after.name}"
    return [
        f"{asked}, judge {report.judge}: {diff.after.name} {tally(report)}, score {report.score or 'none'}.",
        _grid(("", diff.before.name, diff.after.name), [(name, ours[name], theirs[name]) for name in ours]),
    ]


def _own_figures(scored: Scored) -> dict[str, str]:
    report = scored.report
    return {
        "held against": scored.against,
        "judge": report.judge,
        "held-out prompts": str(report.prompts),
        "win score": str(report.score or "none"),
        **figures(report.candidate),
    }


def _questions(diff: VersionDiff) -> list[str]:
    if not diff.questions:
        return []
    parts = ["## The same questions, answered by both"]
    if diff.prompt and diff.before.number:
        parts.append("Each answered under its own system prompt.")
    for number, asked in enumerate(diff.questions, 1):
        answers = {
            "the person": asked.reference,
            diff.before.name: asked.before,
            diff.after.name: asked.after,
        }
        if asked.before == asked.after:
            answers = {"the person": asked.reference, "both": asked.before}
        parts.append(f"{number}. *{asked.category}*: {clip(asked.question, ANSWER_CHARACTERS)}")
        parts.append(
            "\n".join(
                f"   - **{name}**: {clip(text, ANSWER_CHARACTERS) or '(nothing)'}"
                for name, text in answers.items()
            )
        )
    return parts


def _persona(diff: VersionDiff) -> list[str]:
    parts = []
    if diff.prompt:
        fence = "~~~~" if any("```" in line for line in diff.prompt) else "```"
        lines = [f"{fence}diff", *diff.prompt, fence]
        parts.append("\n".join(["System prompt, a sentence a line:", "", *lines]))
    if diff.fields:
        parts.append(_fields(diff, diff.fields))
    return ["## Persona", *parts] if parts else []


def _settings(diff: VersionDiff) -> list[str]:
    return ["## Training settings", _fields(diff, diff.settings)] if diff.settings else []


def _examples(diff: VersionDiff) -> list[str]:
    if not _example_news(diff):
        return []
    sides = (("to learn from", diff.train), ("held out", diff.held_out))
    parts = [
        "## Examples",
        _grid(
            ("", "before", "after", "added", "removed"),
            [(name, *map(str, (c.before, c.after, c.added, c.removed))) for name, c in sides],
        ),
    ]
    for name, changes in sides:
        parts += _samples(name, changes)
    return [*parts, *_categories(diff)]


def _samples(name: str, changes: ExampleChanges) -> list[str]:
    shown = (("Added", changes.added_samples), ("Removed", changes.removed_samples))
    return [f"{what} {name}, for example:\n\n{_bullets(map(_sample, some))}" for what, some in shown if some]


def _sample(sample: Sample) -> str:
    return f"*{sample.category}*: {sample.question} ⇒ {sample.answer}"


def _categories(diff: VersionDiff) -> list[str]:
    rows = [
        (
            change.category,
            _count(change.train_before, change.train_after),
            _count(change.held_out_before, change.held_out_after),
        )
        for change in diff.categories
    ]
    return [_grid(("category", "to learn from", "held out"), rows)]


def _count(before: int, after: int) -> str:
    return f"{before} → {after}" if before != after else str(after)


def _lineage(diff: VersionDiff) -> str:
    names = ("created_at", "parent", "base_model", "design", "dataset", "job", "evaluation")
    rows = [
        (name.removesuffix("_at").replace("_", " "), *(str(getattr(side, name) or ABSENT) for side in sides))
        for sides in [(diff.before, diff.after)]
        for name in names
    ]
    return "## Lineage\n\n" + _grid(("", diff.before.name, diff.after.name), rows)


def _fields(diff: VersionDiff, changes: Sequence[FieldChange]) -> str:
    return _grid(
        ("", diff.before.name, diff.after.name),
        [(change.field, _value(change.before), _value(change.after)) for change in changes],
    )


def _move(change: FieldChange) -> str:
    return f"{change.field} {_value(change.before)} → {_value(change.after)}"


def _value(text: str | None) -> str:
    return ABSENT if text is None else clip(text, VALUE_CHARACTERS)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up as plain text."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [min(PAD, max(3, *map(len, column))) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
