"""The evidence of a diff as Markdown, a section each: scores, answers, persona, examples, settings, lineage.

Does not know what of it is news. Tables are padded, so that they read well in a terminal too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flows.texts import figures, tally
from tasks.comparison.examples import ExampleChanges, Sample, clip
from tasks.comparison.fields import FieldChange
from tasks.comparison.report import VersionDiff
from tasks.comparison.scores import Scored

ANSWER_CHARACTERS = 600
VALUE_CHARACTERS = 80
PAD = 48
ABSENT = "–"


def scores(diff: VersionDiff) -> list[str]:
    """Return both on the same prompts, where they were, and each in its own evaluation."""
    parts = ["## Scores"]
    if diff.scores.direct:
        parts += _head_to_head(diff)
    if diff.scores.before is not None or not diff.scores.direct:
        sides = {diff.before.name: diff.scores.before, diff.after.name: diff.scores.after}
        columns = {name: _own_figures(scored) for name, scored in sides.items() if scored}
        rows = [(name, *(own[name] for own in columns.values())) for name in columns[diff.after.name]]
        parts += ["Each in its own evaluation:", _grid(("", *columns), rows)]
    if diff.scores.notes:
        parts.append(bullets(diff.scores.notes))
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


def questions(diff: VersionDiff) -> list[str]:
    """Return each question with the real answer and both sides' own."""
    if diff.questions is None:
        return []
    parts = ["## The same questions, answered by both"]
    if not diff.questions:
        parts.append("There is none to ask: no conversation was held out by both.")
    elif diff.prompt and diff.before.number:
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


def persona(diff: VersionDiff) -> list[str]:
    """Return what changed in the persona, the system prompt first."""
    parts = []
    if diff.prompt:
        fence = "~~~~" if any("```" in line for line in diff.prompt) else "```"
        lines = [f"{fence}diff", *diff.prompt, fence]
        parts.append("\n".join(["System prompt, a sentence a line:", "", *lines]))
    if diff.fields:
        parts.append(_fields(diff, diff.fields))
    return ["## Persona", *parts] if parts else []


def examples(diff: VersionDiff) -> list[str]:
    """Return what was added and removed, with samples, and the categories."""
    if not diff.examples_changed:
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
    return [f"{what} {name}, for example:\n\n{bullets(map(_sample, some))}" for what, some in shown if some]


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


def settings(diff: VersionDiff) -> list[str]:
    """Return the training settings that changed."""
    return ["## Training settings", _fields(diff, diff.settings)] if diff.settings else []


def lineage(diff: VersionDiff) -> str:
    """Return where both come from."""
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
        [(change.field, value(change.before), value(change.after)) for change in changes],
    )


def value(text: str | None) -> str:
    """Return a field's value as it is shown."""
    return ABSENT if text is None else clip(text, VALUE_CHARACTERS)


def bullets(lines: Iterable[str]) -> str:
    """Return lines as a Markdown list."""
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
