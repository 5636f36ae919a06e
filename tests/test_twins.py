"""Twins: the index finds what comparing with every text would find, and little else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.quality import near_duplicate, overlap
from agents.twins import Twins

WORD = st.sampled_from(("a", "roof", "leaks", "again", "in", "the", "harbour", "office", "since", "monday"))


class Kept:
    """Texts and their hashes; the candidates are compared exactly, as a stage of a run does."""

    def __init__(self, threshold: float) -> None:
        self.texts: dict[int, str] = {}
        self.twins = Twins(threshold)

    def add(self, position: int, text: str) -> None:
        if position not in self.twins:
            self.texts[position] = text
        self.twins.add(position, text)

    def nearest(self, text: str, *, besides: int | None = None) -> str | None:
        others = [self.texts[at] for at in sorted(self.twins.candidates(text) - {besides})]
        best = near_duplicate(text, others, threshold=self.twins.threshold)
        return None if best is None else others[best]


TEXTS = st.lists(st.lists(WORD, min_size=1, max_size=14).map(" ".join), max_size=14)


@given(
    TEXTS, st.lists(WORD, min_size=1, max_size=14).map(" ".join), st.sampled_from((0.3, 0.6, 0.7, 0.8, 1.0))
)
def test_the_nearest_twin_is_the_one_that_comparing_with_all_finds(
    others: list[str], text: str, threshold: float
) -> None:
    twins = Kept(threshold)
    for position, other in enumerate(others):
        twins.add(position, other)
    best = near_duplicate(text, others, threshold=threshold)
    assert twins.nearest(text) == (None if best is None else others[best])


@given(TEXTS, st.integers(min_value=0, max_value=13))
def test_a_position_is_never_its_own_twin(texts: list[str], position: int) -> None:
    twins = Kept(0.6)
    for at, text in enumerate(texts):
        twins.add(at, text)
    if position < len(texts):
        rest = [text for at, text in enumerate(texts) if at != position]
        best = near_duplicate(texts[position], rest, threshold=0.6)
        found = twins.nearest(texts[position], besides=position)
        assert found == (None if best is None else rest[best])


def test_an_edited_copy_is_found_among_many() -> None:
    pick = random.Random(1)
    vocabulary = [
        f"{first}{second}" for first in "bcdfglmnprst" for second in ("a", "em", "ion", "ory", "ut")
    ]
    texts = [" ".join(pick.choice(vocabulary) for _ in range(200)) for _ in range(300)]
    twins = Kept(0.7)
    for position, text in enumerate(texts):
        twins.add(position, text)
    copy = texts[123].split()
    copy[50], copy[120] = "edited", "changed"
    assert twins.nearest(" ".join(copy)) == texts[123]
    assert twins.nearest(" ".join(pick.choice(vocabulary) for _ in range(200))) is None


def test_a_position_keeps_the_first_text_it_was_given() -> None:
    twins = Kept(0.6)
    twins.add(1, "the roof leaks again")
    twins.add(1, "another text altogether")
    assert twins.nearest("the roof leaks again") == "the roof leaks again"
    assert twins.nearest("another text altogether") is None


def edited(text: list[str], pick: random.Random, share: float) -> str:
    """Return a text with words changed until about `share` of its runs are still the old ones."""
    changed = list(text)
    for at in pick.sample(range(len(changed)), round(len(changed) * (1 - share) / (1 + share) / 2)):
        changed[at] = f"new{pick.randrange(10**6)}"
    return " ".join(changed)


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8])
def test_long_texts_above_the_threshold_are_found_and_strangers_are_not_looked_at(threshold: float) -> None:
    pick = random.Random(2)
    words = [f"word{number}" for number in range(3000)]
    texts = [[pick.choice(words) for _ in range(120)] for _ in range(1500)]  # more than fit into the buffer
    kept = Kept(threshold)
    for position, text in enumerate(texts):
        kept.add(position, " ".join(text))
    copies = [edited(text, pick, threshold + 0.03) for text in texts[:400]]
    expected = [overlap(copy, " ".join(text)) >= threshold for copy, text in zip(copies, texts, strict=False)]
    found = [kept.nearest(copy) is not None for copy in copies]
    assert sum(expected) > 300
    assert sum(a and not b for a, b in zip(expected, found, strict=True)) <= 1
    assert not any(b and not a for a, b in zip(expected, found, strict=True))
    strangers = [" ".join(pick.choice(words) for _ in range(120)) for _ in range(50)]
    assert sum(len(kept.twins.candidates(text)) for text in strangers) <= 5
