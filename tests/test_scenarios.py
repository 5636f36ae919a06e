"""Scenarios: the categories that ship, how positions are spread over them, and a list of one's own."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import InputError, NotFound
from agents.quality import overlap
from agents.scenarios import load_scenarios

OWN = """\
document_types: [memo, email]
categories:
  - name: kitchen
    description: cooking for many
    situations: ['Ada, a cook, has no salt.', 'Bo, a waiter, dropped the soup.']
"""


def test_twenty_categories_and_five_document_types_ship() -> None:
    scenarios = load_scenarios()
    assert len({category.name for category in scenarios.categories}) == 20
    assert {"technical", "ethical", "creative", "crisis"} < {
        category.name for category in scenarios.categories
    }
    assert scenarios.document_types == ("memo", "email", "report", "proposal", "analysis")


def test_every_situation_is_one_sentence_with_a_named_person_and_unlike_the_others() -> None:
    categories = load_scenarios().categories
    situations = [situation for category in categories for situation in category.situations]
    assert all(4 <= len(category.situations) <= 6 for category in categories)
    assert [s for s in situations if not re.fullmatch(r"[A-Z]\w+ [A-Z]\w+,[^.]+\.", s)] == []
    assert max(overlap(a, b) for a, b in combinations(situations, 2)) < 0.3


@given(seed=st.integers(0, 2**31), count=st.integers(1, 300))
def test_positions_are_spread_evenly_over_categories(seed: int, count: int) -> None:
    names = Counter(load_scenarios().situation(position, seed)[0].name for position in range(count))
    assert len(names) == min(count, 20)
    assert max(names.values()) - min(names.values()) <= 1


@given(seed=st.integers(0, 2**31))
def test_a_situation_comes_again_only_when_its_category_has_no_other(seed: int) -> None:
    shown = [load_scenarios().situation(position, seed)[1] for position in range(100)]
    assert len(set(shown)) == 100


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    scenarios = load_scenarios()
    first, again, other = ([scenarios.situation(at, seed) for at in range(20)] for seed in (1, 1, 2))
    assert first == again != other


def test_a_category_meets_every_document_type_with_every_situation() -> None:
    scenarios = load_scenarios()
    met = {(scenarios.situation(at, 0)[1], scenarios.document_type(at)) for at in range(20 * 5 * 5)}
    assert len(met) == 100 * 5
    assert Counter(map(scenarios.document_type, range(100))) == dict.fromkeys(scenarios.document_types, 20)


def test_a_list_of_ones_own_takes_the_place(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    scenarios = load_scenarios(file)
    assert {scenarios.situation(at, 0)[1][:3] for at in range(2)} == {"Ada", "Bo,"}
    assert {scenarios.document_type(at) for at in range(4)} == {"memo", "email"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("description:", "descripton:"), "own.yaml:4: categories[0].descripton: unknown field"),
        (OWN.replace("[memo, email]", "[]"), "own.yaml:1: document_types: tuple should have at least 1 item"),
        (OWN.replace("kitchen", "The Kitchen"), "own.yaml:3: categories[0].name: string should match"),
        (
            OWN.replace("['Ada, a cook, has no salt.'", "[7"),
            "own.yaml:5: categories[0].situations[0]: input should be",
        ),
    ],
)
def test_a_broken_list_says_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        load_scenarios(file)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.yaml"):
        load_scenarios(tmp_path / "nowhere.yaml")
