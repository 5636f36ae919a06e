"""The evaluations of two versions held against each other, and what of them cannot be compared.

Does not know how a figure is computed.
"""

from __future__ import annotations

from pydantic import Field

from agents.schemas import Frozen
from tasks.comparison.examples import ExampleChanges
from tasks.evaluation.report import EvaluationReport


class Scored(Frozen):
    """A version's own evaluation; `against` names what it was held against, a version or a base model."""

    report: EvaluationReport
    against: str


class Scores(Frozen):
    """The evaluations of both side by side.

    `direct` says that the newer one was held against the older one, so that the newer one's evaluation has
    both on the same prompts, asked as the newer one is; `notes` says what else must not be compared.
    """

    before: Scored | None = Field(description="None for a base model, which has none of its own")
    after: Scored
    direct: bool
    notes: tuple[str, ...]


def compare_scores(
    before: Scored | None, after: Scored, *, direct: bool, held_out: ExampleChanges, same_rules: bool
) -> Scores:
    """Put two evaluations side by side, with a note for each difference that forbids comparing them."""
    return Scores(
        before=before,
        after=after,
        direct=direct,
        notes=_obstacles(before, after, held_out, same_rules=same_rules) if before else (),
    )


def _obstacles(
    before: Scored, after: Scored, held_out: ExampleChanges, *, same_rules: bool
) -> tuple[str, ...]:
    notes = []
    if held_out.differ:
        notes.append(
            f"Other held-out conversations ({held_out.before}, then {held_out.after}; {held_out.kept} in "
            "both): no figure of one evaluation is comparable with the other's."
        )
    if before.against != after.against:
        notes.append(
            f"Other baselines ({before.against}, then {after.against}): the win scores are not comparable."
        )
    if before.report.judge != after.report.judge:
        notes.append(
            f"Other judges ({before.report.judge}, then {after.report.judge}): "
            "the win scores are not comparable."
        )
    if not same_rules:
        notes.append("Other validation rules: the validation pass rates are not comparable.")
    return tuple(notes)
