"""Twins: the index finds what comparing with every text would find, and nothing else."""

import random

from hypothesis import given
from hypothesis import strategies as st

from agents.quality import near_duplicate
from agents.twins import Twins

WORD = st.sampled_from(("a", "roof", "leaks", "again", "in", "the", "harbour", "office", "since", "monday"))
TEXTS = st.lists(st.lists(WORD, min_size=1, max_size=14).map(" ".join), max_size=14)


@given(
    TEXTS, st.lists(WORD, min_size=1, max_size=14).map(" ".join), st.sampled_from((0.3, 0.6, 0.7, 0.8, 1.0))
)
def test_the_nearest_twin_is_the_one_that_comparing_with_all_finds(
    others: list[str], text: str, threshold: float
) -> None:
    twins = Twins(threshold)
    for position, other in enumerate(others):
        twins.add(position, other)
    best = near_duplicate(text, others, threshold=threshold)
    assert twins.nearest(text) == (None if best is None else others[best])


@given(TEXTS, st.integers(min_value=0, max_value=13))
def test_a_position_is_never_its_own_twin(texts: list[str], position: int) -> None:
    twins = Twins(0.6)
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
    twins = Twins(0.7)
    for position, text in enumerate(texts):
        twins.add(position, text)
    copy = texts[123].split()
    copy[50], copy[120] = "edited", "changed"
    assert twins.nearest(" ".join(copy)) == texts[123]
    assert twins.nearest(" ".join(pick.choice(vocabulary) for _ in range(200))) is None


def test_a_position_keeps_the_first_text_it_was_given() -> None:
    twins = Twins(0.6)
    twins.add(1, "the roof leaks again")
    twins.add(1, "another text altogether")
    assert twins.nearest("the roof leaks again") == "the roof leaks again"
    assert twins.nearest("another text altogether") is None
