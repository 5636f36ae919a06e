"""Plans: the figures of the two that ship, scaling, and files whose sums do not add up."""

from collections import Counter
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import InputError, NotFound
from agents.kinds import LENGTHS, load_kinds
from agents.plans import FOLDER, load_plan, parse_plan, shipped_plans
from agents.plans.file import PlanFile

FULL = (FOLDER / "full-2500.yaml").read_text()
OWN = """\
name: two
description: Two kinds, one of them new.
lengths:
  short:
    total: 10
    groups:
      "2":
        total: 10
        cells: {manager-developer: 4, coffee-break: 6}
kinds:
  - name: coffee-break
    cast: [intern, hr]
    topics:
      short: [They talk about the weekend.]
"""
UNREACHABLE = """\
name: two
description: Only the short ones can be manager-developer, and eight are wanted.
lengths:
  short:
    total: 5
    groups: {"2": {total: 5, cells: {manager-developer: 5}}}
  medium:
    total: 5
    groups: {"2": {total: 5, cells: {developer-qa: 5}}}

participants:
  "2":
    total: 10
    rows:
      first: {total: 8, kinds: [manager-developer]}
      second: {total: 2, kinds: [developer-qa]}
"""


def by(plan, *names: str) -> Counter:
    totals: Counter = Counter()
    for cell in plan.cells:
        key = tuple(getattr(cell, name) for name in names)
        totals[key if len(names) > 1 else key[0]] += cell.planned
    return totals


def test_two_plans_ship() -> None:
    assert shipped_plans() == ("focused-2000", "full-2500")


def test_the_full_plan_meets_both_of_its_counts() -> None:
    plan = load_plan("full-2500")
    assert plan.total == 2500
    assert by(plan, "length") == {"short": 1250, "medium": 875, "long": 375}
    assert by(plan, "group") == {"2": 1000, "3": 875, "4+": 625}
    kinds = by(plan, "kind")
    assert kinds["manager-developer"] == 250
    assert kinds["developer-qa"] + kinds["technical-deep-dives"] == 200
    assert kinds["manager-hr"] == 100
    assert kinds["manager-developer-qa"] + kinds["release-crisis"] == 300
    assert kinds["manager-developer-intern"] == 100
    assert kinds["brief-standups"] + kinds["team-meetings"] == 250
    assert kinds["problem-solving"] + kinds["crisis-management"] == 150


def test_the_full_plan_is_written_as_the_source_has_it_and_says_how_far_it_was_moved() -> None:
    plan = load_plan("full-2500")
    written: Counter = Counter()
    for cell in plan.cells:
        written[cell.group] += cell.written
    assert written == {"2": 1050, "3": 875, "4+": 575}
    assert sum(cell.moved for cell in plan.cells) == 0
    assert 0 < max(abs(cell.moved) for cell in plan.cells) < 40


def test_the_focused_plan_is_mostly_short() -> None:
    plan = load_plan("focused-2000")
    assert by(plan, "length") == {"short": 1400, "medium": 500, "long": 100}
    assert by(plan, "length", "group") == {
        ("short", "2"): 900,
        ("short", "3"): 350,
        ("short", "4+"): 150,
        ("medium", "2"): 150,
        ("medium", "3"): 250,
        ("medium", "4+"): 100,
        ("long", "2"): 30,
        ("long", "4+"): 70,
    }
    long = {cell.kind: cell.planned for cell in plan.cells if cell.length == "long"}
    assert long == {"crisis-management": 40, "complex-negotiations": 30, "strategic-planning": 30}
    assert not any(cell.moved for cell in plan.cells)


@given(st.sampled_from(["full-2500", "focused-2000"]), st.integers(1, 100_000))
def test_scaling_is_exact_in_the_sum_and_within_one_everywhere(name: str, total: int) -> None:
    plan = load_plan(name)
    counts = plan.scaled(total)
    assert sum(counts) == total
    for names in (("length",), ("length", "group"), ("length", "group", "kind")):
        got: Counter = Counter()
        for cell, count in zip(plan.cells, counts, strict=True):
            got[tuple(getattr(cell, part) for part in names)] += count
        for key, whole in by(plan, *names).items():
            share = Fraction(whole * total, plan.total)
            assert floor(share) <= got[key if isinstance(key, tuple) else (key,)] <= ceil(share)


def test_a_plan_scaled_to_its_own_size_is_itself() -> None:
    plan = load_plan("full-2500")
    assert plan.scaled(2500) == tuple(cell.planned for cell in plan.cells)


def test_a_plan_of_ones_own_brings_its_kinds(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(OWN)
    plan = load_plan(str(path))
    assert plan.total == 10
    assert plan.kind(plan.cells[1]).cast == ("intern", "hr")


def test_an_unknown_plan_is_told_what_ships() -> None:
    with pytest.raises(NotFound, match="focused-2000, full-2500"):
        load_plan("huge-9000")


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("manager-hr: 75", "manager-hr: 76", "total: 750", ["751", "750", "manager-hr 76"]),
        ("total: 350", "total: 351", "total: 1250", ["1251", "1250", "short"]),
        ("total: 1250", "total: 1251", "total: 1251", ["1250", "1251"]),
        ("brief-standups: 100", "brief-standups: -1", "brief-standups: -1", ["greater than or equal", "-1"]),
        ("manager-hr: 75", "manager-nobody: 75", "manager-nobody: 75", ["no such kind"]),
        ("qa-developer: 50", "quarterly-planning: 50", "quarterly-planning: 50", ["4 people or more"]),
        ("qa-developer: 50", "hr-employee: 50", "hr-employee: 50", ["no topics for medium"]),
        ("total: 1000", "total: 999", "participants:", ["2499", "2500"]),
        ("kinds: [manager-hr]", "kinds: [qa-developer]", "manager-hr: {total: 100", ["counted in"]),
        ("kinds: [manager-hr]", "kinds: [coffee]", "kinds: [coffee]", ["no length has 'coffee'"]),
        ("participants:", "particpants:", "particpants:", ["did you mean 'participants'"]),
        ("  short:", "  brief:", "  brief:", ["'short'", "'brief'"]),
    ],
)
def test_a_plan_that_does_not_add_up_is_refused_with_the_line_and_the_sums(
    old: str, new: str, place: str, words: list[str]
) -> None:
    text = FULL.replace(old, new, 1)
    assert text != FULL
    with pytest.raises(InputError) as caught:
        parse_plan(text, "mine.yaml")
    assert f"mine.yaml:{line_of(text, place)}:" in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_totals_that_no_fit_can_reach_are_refused() -> None:
    with pytest.raises(InputError, match=r"mine.yaml:11: participants: no table with these cells") as caught:
        parse_plan(UNREACHABLE, "mine.yaml")
    assert "first (2) comes to 5.0, not 8" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cast: [intern, hr]", "cast: [intern, nobody]", "kinds[0].cast[1]: There is no persona 'nobody'"),
        ("cast: [intern, hr]", "cast: [intern, intern]", "names somebody twice"),
        ("cast: [intern, hr]", "cast: [intern, hr]\n    people: [2, 3]", "between 2 and the cast's 2"),
        ("[intern, hr]", "[intern, hr, qa, client]\n    people: [3, 4]", "stay in one group"),
        ("[intern, hr]", "[intern, hr, qa, client, developer]", "5 people cannot all speak in 4 exchanges"),
        ("short: [They", "short: []\n      medium: [They", "at least one topic"),
    ],
)
def test_a_kind_that_cannot_be_played_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_plan(OWN.replace(old, new, 1), "mine.yaml")
    assert words in str(caught.value)


def test_the_bands_are_those_of_the_specification() -> None:
    bands = load_kinds().bands
    assert [bands[length].exchanges for length in LENGTHS] == [(2, 4), (5, 10), (11, 20)]
    assert [bands[length].tokens for length in LENGTHS] == [(100, 400), (400, 1200), (1200, 3000)]


def test_the_schema_draws_a_form() -> None:
    assert "lengths" in PlanFile.model_json_schema()["properties"]
