"""Examples of two datasets held against each other: added, removed, by category, held out in both.

Does not know where datasets are kept. An example is its turns without the system message, so that a changed
prompt does not make every example look new.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Protocol, TypeVar

from agents.schemas import Frozen, Messages, fingerprint
from tasks.evaluation.prompts import HeldOut

SAMPLES = 3
SAMPLE_CHARACTERS = 160


class Categorised(Protocol):
    """A conversation with its category, from whichever side of the split."""

    @property
    def category(self) -> str:
        """Return the category."""

    @property
    def messages(self) -> Messages:
        """Return the turns, the system message included."""


Item = TypeVar("Item", bound=Categorised)


class Sample(Frozen):
    """An example as it is shown: its last question and answer, each on one line and shortened."""

    category: str
    question: str
    answer: str


class ExampleChanges(Frozen):
    """How many examples there were and are, what came and what went, with a few of each."""

    before: int
    after: int
    added: int
    removed: int
    added_samples: tuple[Sample, ...]
    removed_samples: tuple[Sample, ...]

    @property
    def differ(self) -> bool:
        """Tell whether any was added or removed."""
        return bool(self.added or self.removed)

    @property
    def kept(self) -> int:
        """Return how many examples are in both."""
        return self.after - self.added


class CategoryChange(Frozen):
    """How many examples of a category there were and are, on each side of the split."""

    category: str
    train_before: int
    train_after: int
    held_out_before: int
    held_out_after: int

    @property
    def moved(self) -> int:
        """Return by how many examples the category grew or shrank, both sides added up."""
        return abs(self.train_after - self.train_before) + abs(self.held_out_after - self.held_out_before)


def content_key(messages: Messages) -> str:
    """Return the identity of a conversation without its system message."""
    return fingerprint(*(f"{m.role}:{m.content}" for m in messages if m.role != "system"))


def compare_examples(before: Sequence[Categorised], after: Sequence[Categorised]) -> ExampleChanges:
    """Count and sample what was added and removed; what is there twice counts twice."""
    added, removed = missing_from(after, before), missing_from(before, after)
    return ExampleChanges(
        before=len(before),
        after=len(after),
        added=len(added),
        removed=len(removed),
        added_samples=tuple(map(_sample, spread(added, SAMPLES))),
        removed_samples=tuple(map(_sample, spread(removed, SAMPLES))),
    )


def missing_from(items: Iterable[Item], others: Iterable[Categorised]) -> list[Item]:
    """Return the items that are not among the others, each as often as it is there more often."""
    left = Counter(content_key(other.messages) for other in others)
    missing = []
    for item in items:
        key = content_key(item.messages)
        if left[key]:
            left[key] -= 1
        else:
            missing.append(item)
    return missing


def compare_categories(
    train: tuple[Sequence[Categorised], Sequence[Categorised]],
    held_out: tuple[Sequence[Categorised], Sequence[Categorised]],
) -> tuple[CategoryChange, ...]:
    """Count every category, each side given as (before, after); the one that moved most comes first."""
    counts = [Counter(item.category for item in side) for side in (*train, *held_out)]
    changes = [
        CategoryChange(
            category=name,
            train_before=counts[0][name],
            train_after=counts[1][name],
            held_out_before=counts[2][name],
            held_out_after=counts[3][name],
        )
        for name in sorted(set().union(*counts))
    ]
    return tuple(sorted(changes, key=lambda change: -change.moved))


def shared_prompts(
    before: Iterable[HeldOut], after: Iterable[HeldOut], learned: Iterable[Categorised], count: int
) -> list[tuple[HeldOut, HeldOut]]:
    """Return up to `count` conversations held out by both, as each has them, evenly from the categories.

    One whose prompt was learned by either is left out. The same datasets give the same conversations.
    """
    known = {content_key(item.messages[:-1]) for item in learned}
    earlier = {content_key(item.messages): item for item in before}
    common = {
        key: item
        for item in after
        if (key := content_key(item.messages)) in earlier and content_key(item.prompt) not in known
    }
    chosen = spread(list(common.values()), count)
    return [(earlier[content_key(item.messages)], item) for item in chosen]


def spread(items: Iterable[Item], count: int) -> list[Item]:
    """Return up to `count` items, one of each category in turn; their order in `items` does not matter."""
    queues: defaultdict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: (item.category, content_key(item.messages))):
        queues[item.category].append(item)
    rounds = zip_longest(*queues.values())
    return [item for turn in rounds for item in turn if item is not None][:count]


def clip(text: str, characters: int) -> str:
    """Return a text on one line, cut with an ellipsis where it is longer than that."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def _sample(item: Categorised) -> Sample:
    asked = [m.content for m in item.messages if m.role == "user"]
    return Sample(
        category=item.category,
        question=clip(asked[-1] if asked else "", SAMPLE_CHARACTERS),
        answer=clip(item.messages[-1].content, SAMPLE_CHARACTERS),
    )
