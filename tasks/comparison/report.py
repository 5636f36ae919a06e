"""What a diff says: two versions, what changed between them, and the same questions answered by both.

Does not know where any of it is stored, nor how it is shown.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agents.schemas import Frozen
from tasks.comparison.examples import CategoryChange, ExampleChanges
from tasks.comparison.fields import FieldChange
from tasks.comparison.scores import Scores

Step = Literal["first", "major", "minor", "patch"]


class Edition(Frozen):
    """One side of a diff: a version, or the base model that a first version came from.

    Of a base model only `name`, `address` and `base_model` are known.
    """

    name: str
    address: str
    base_model: str
    number: str | None = None
    change: str | None = Field(default=None, description="what made the number, as it was registered")
    live: bool = False
    gate: str | None = Field(default=None, description="the last verdict on it")
    reasons: tuple[str, ...] = Field(default=(), description="the checks that decided that verdict")
    parent: str | None = None
    design: str | None = None
    dataset: str | None = None
    job: str | None = None
    evaluation: str | None = None
    created_at: str | None = None


class Question(Frozen):
    """A held-out question with the real person's answer and both sides' own."""

    category: str
    question: str
    reference: str
    before: str
    after: str


class VersionDiff(Frozen):
    """Everything that tells `after` from `before`, the older one.

    `prompt` is a unified diff without its header, empty where nothing changed; `fields` are the persona's
    other fields, `settings` the backend and the hyperparameters.
    """

    persona: str
    before: Edition
    after: Edition
    step: Step = Field(description="the weightiest part of the number that moved")
    why: str
    base_model_changed: bool
    design_changed: bool
    prompt: tuple[str, ...]
    fields: tuple[FieldChange, ...]
    train: ExampleChanges
    held_out: ExampleChanges
    categories: tuple[CategoryChange, ...]
    settings: tuple[FieldChange, ...]
    scores: Scores
    questions: tuple[Question, ...] | None = Field(default=None, description="None when none was asked for")

    @property
    def examples_changed(self) -> bool:
        """Tell whether any example came, went or changed its category."""
        return self.train.differ or self.held_out.differ or any(change.moved for change in self.categories)
