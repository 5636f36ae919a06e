"""Pack tokenised conversations into sequences of one constant length that do not see each other.

Does not know tensors or models. What all conversations begin with (a persona's system prompt) is written
once per sequence and seen by all of them, which leaves every gradient as it is and saves computing it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from tasks.training.base import Hyperparameters

SHARED, PADDING = 0, -1
_ROUND = 64
_SHUFFLES = 8
_OPEN = 32


@dataclass(frozen=True)
class Example:
    """A conversation as token ids; `learned` is true where the assistant speaks."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]


@dataclass(frozen=True)
class Packed:
    """Examples in one sequence: per position its id, its place in the conversation and its segment.

    Segment 0 is the shared beginning, 1, 2, … the examples, -1 padding. At each of the positions `rows`
    the model is asked for the token in `labels`. `tokens` counts the examples' own, before sharing.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]
    rows: tuple[int, ...]
    labels: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Step:
    """The sequences of one optimiser step; `epoch_ends` is the number of the epoch it completes, or 0."""

    sequences: tuple[Packed, ...]
    epoch_ends: int = 0

    @property
    def targets(self) -> int:
        """Return the number of tokens that are learned in this step."""
        return sum(len(sequence.labels) for sequence in self.sequences)

    @property
    def tokens(self) -> int:
        """Return the number of tokens of the examples of this step."""
        return sum(sequence.tokens for sequence in self.sequences)


def cut(example: Example, length: int) -> Example | None:
    """Return the example cut to a length, or None when nothing is left to learn."""
    kept = Example(example.ids[:length], example.learned[:length])
    return kept if any(kept.learned[1:]) else None


def plan_steps(examples: Sequence[Example], settings: Hyperparameters) -> list[Step]:
    """Return all optimiser steps of a training; the same examples and seed give the same plan.

    Every epoch has each example once, in an order of its own. Examples must fit `sequence_tokens`.
    """
    shared = shared_length(examples)
    length = _best_length(examples, shared, settings)
    steps: list[Step] = []
    for epoch in range(1, settings.epochs + 1):
        groups = _best_groups(examples, shared, length, f"{settings.seed}/{epoch}")
        sequences = [pack([examples[i] for i in group], shared, length) for group in groups]
        for start in range(0, len(sequences), settings.batch_sequences):
            stop = start + settings.batch_sequences
            steps.append(Step(tuple(sequences[start:stop]), epoch if stop >= len(sequences) else 0))
    return steps


def plan_validation(examples: Sequence[Example], settings: Hyperparameters) -> list[Packed]:
    """Return the examples packed once, for a loss that is measured again and again."""
    shared = shared_length(examples)
    length = _best_length(examples, shared, settings)
    groups = _best_groups(examples, shared, length, str(settings.seed))
    return [pack([examples[i] for i in group], shared, length) for group in groups]


def shared_length(examples: Sequence[Example]) -> int:
    """Return how many tokens all examples begin with in common, ending before any is to be predicted."""
    first, *others = examples
    limit = min(example.learned.index(True) for example in examples) - 1
    common = takewhile(
        lambda column: len(set(column)) == 1, zip(first.ids, *(o.ids for o in others), strict=False)
    )
    return max(0, min(limit, sum(1 for _ in common))) if others else 0


def pack(examples: Sequence[Example], shared: int, length: int) -> Packed:
    """Write examples one after the other behind their shared beginning, and fill up with padding."""
    ids = list(examples[0].ids[:shared])
    positions = list(range(shared))
    segments = [SHARED] * shared
    rows: list[int] = []
    labels: list[int] = []
    for number, example in enumerate(examples, 1):
        offset = len(ids) - shared
        wanted = [at for at in range(shared + 1, len(example.ids)) if example.learned[at]]
        rows += [offset + at - 1 for at in wanted]
        labels += [example.ids[at] for at in wanted]
        ids += example.ids[shared:]
        positions += range(shared, len(example.ids))
        segments += [number] * (len(example.ids) - shared)
    padding = length - len(ids)
    return Packed(
        ids=(*ids, *[0] * padding),
        positions=(*positions, *[0] * padding),
        segments=(*segments, *[PADDING] * padding),
        rows=tuple(rows),
        labels=tuple(labels),
        tokens=sum(len(example.ids) for example in examples),
    )


def _best_length(examples: Sequence[Example], shared: int, settings: Hyperparameters) -> int:
    """Return the length, up to the longest allowed, at which the fewest positions are computed.

    It is at least half of the longest, lest matrices become too small to be quick, unless all fits in less.
    """
    most, seed = settings.sequence_tokens, f"{settings.seed}/1"
    longest = max(len(example.ids) for example in examples)
    whole = shared + sum(len(example.ids) - shared for example in examples)
    least = -(-max(longest, min(whole, most // 2)) // _ROUND) * _ROUND
    lengths: list[int] = [*range(least, most, _ROUND), most]
    positions = {length: length * len(_best_groups(examples, shared, length, seed)) for length in lengths}
    return min(lengths, key=lambda length: (positions[length], -length))


def _best_groups(examples: Sequence[Example], shared: int, length: int, seed: str) -> list[list[int]]:
    """Return the grouping with the fewest sequences among a few shuffles."""
    own = [len(example.ids) - shared for example in examples]
    shuffles = random.Random(seed)  # noqa: S311
    order = list(range(len(own)))
    found: list[list[list[int]]] = []
    for _ in range(_SHUFFLES):
        shuffles.shuffle(order)
        found.append(_first_fit(order, own, length - shared))
    return min(found, key=len)


def _first_fit(order: Sequence[int], own: Sequence[int], room: int) -> list[list[int]]:
    """Put each example into the first of the sequences last opened that has room for it."""
    groups: list[list[int]] = []
    left: list[int] = []
    for index in order:
        recent = range(max(0, len(groups) - _OPEN), len(groups))
        at = next((i for i in recent if left[i] >= own[index]), len(groups))
        if at == len(groups):
            groups.append([])
            left.append(room)
        groups[at].append(index)
        left[at] -= own[index]
    return groups
