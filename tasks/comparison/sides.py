"""The two sides of a diff and their comparison: what each version was made of, held against the other.

Does not know where it was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.schemas import Conversation, Persona
from tasks.comparison.examples import compare_categories, compare_examples
from tasks.comparison.fields import changed_fields, changed_text
from tasks.comparison.report import Edition, Step, VersionDiff
from tasks.comparison.scores import Scored, compare_scores
from tasks.evaluation.prompts import HeldOut
from tasks.evaluation.versions import parse_number

SHOWN_APART = {"name", "system_prompt", "base_model"}


@dataclass(frozen=True)
class Base:
    """A base model, which was made of nothing of ours."""

    edition: Edition
    cast: None = None
    scored: None = None
    train: Sequence[Conversation] = ()
    held_out: Sequence[HeldOut] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuned:
    """A version: the persona as it was then, its examples, how it was trained, what was measured."""

    edition: Edition
    cast: Persona
    scored: Scored
    train: Sequence[Conversation]
    held_out: Sequence[HeldOut]
    settings: Mapping[str, Any]


def compare_sides(before: Base | Tuned, after: Tuned) -> VersionDiff:
    """Return everything that changed but for the answers, which nobody gave yet; of a base all is new."""
    train = compare_examples(before.train, after.train)
    held_out = compare_examples(before.held_out, after.held_out)
    old, new = before.edition, after.edition
    step = number_step(old.number, str(new.number))
    base_model, design = old.base_model != new.base_model, old.design != new.design
    return VersionDiff(
        persona=after.cast.name,
        before=old,
        after=new,
        step=step,
        why=step_reason(
            step, base_model=base_model, design=design, refreshed=after.edition.change == "refresh"
        ),
        base_model_changed=base_model,
        design_changed=design,
        prompt=changed_text(before.cast.system_prompt if before.cast else "", after.cast.system_prompt),
        fields=changed_fields(*_persona_fields(before.cast, after.cast)),
        train=train,
        held_out=held_out,
        categories=compare_categories((before.train, after.train), (before.held_out, after.held_out)),
        settings=changed_fields(before.settings, after.settings),
        scores=compare_scores(
            before.scored,
            after.scored,
            direct=after.scored.report.baseline.model == old.address,
            held_out=held_out,
            same_rules=before.cast is None or before.cast.validation == after.cast.validation,
        ),
    )


def number_step(before: str | None, after: str) -> Step:
    """Return which part of the number moved, the weightiest one; without a number before, the first."""
    if before is None:
        return "first"
    old, new = parse_number(before), parse_number(after)
    if old[0] != new[0]:
        return "major"
    return "minor" if old[1] != new[1] else "patch"


def step_reason(step: Step, *, base_model: bool, design: bool, refreshed: bool) -> str:
    """Return in words what such a step stands for, given what changed."""
    changed = [name for name, differs in (("base model", base_model), ("persona design", design)) if differs]
    reasons: dict[Step, str] = {
        "first": "there was none before it",
        "major": f"another {' and another '.join(changed)}" if changed else "a redesign in between",
        "minor": "a measured improvement",
        "patch": "a refresh on the same examples" if refreshed else "new training data or settings",
    }
    return reasons[step]


def _persona_fields(before: Persona | None, after: Persona) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of both personas; where there is none before, only those that say something new."""
    if before is None:
        return {}, after.model_dump(mode="json", exclude=SHOWN_APART, exclude_defaults=True)
    return (
        before.model_dump(mode="json", exclude=SHOWN_APART),
        after.model_dump(mode="json", exclude=SHOWN_APART),
    )
