"""A plan as people write it, and what can be wrong with it: unknown kinds, sums that do not add up.

Does not know how the two ways of counting are brought together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, NonNegativeInt

from agents.definitions import Place, Problem
from agents.kinds import GroupSize, Kind, Kinds, Length
from agents.schemas import Frozen, Slug, Text

CellKey = tuple[Length, GroupSize, str]


class CellGroup(Frozen):
    """The conversations of one length among so many people, by kind."""

    total: NonNegativeInt
    cells: dict[Slug, NonNegativeInt]


class LengthPlan(Frozen):
    """The conversations of one length."""

    total: NonNegativeInt
    groups: dict[GroupSize, CellGroup]


class Row(Frozen):
    """Kinds that are counted together by participants, whatever their length."""

    total: NonNegativeInt
    kinds: tuple[Slug, ...] = Field(min_length=1)


class ParticipantPlan(Frozen):
    """The conversations among so many people."""

    total: NonNegativeInt
    rows: dict[Slug, Row]


class PlanFile(Frozen):
    """Counts by length and, where given, by participants too.

    `kinds` adds to the ones that ship, or replaces them by name.
    """

    name: Slug
    description: Text
    lengths: dict[Length, LengthPlan] = Field(min_length=1)
    participants: dict[GroupSize, ParticipantPlan] = Field(default_factory=dict)
    kinds: tuple[Kind, ...] = ()

    def cells(self) -> dict[CellKey, int]:
        """Return the count of each cell as written."""
        return {
            (length, size, kind): count
            for length, plan in self.lengths.items()
            for size, group in plan.groups.items()
            for kind, count in group.cells.items()
        }

    def rows(self) -> Iterator[tuple[GroupSize, str, Row]]:
        """Yield the rows of the count by participants: group, name, row."""
        for size, plan in self.participants.items():
            for name, row in plan.rows.items():
                yield size, name, row


def plan_problems(file: PlanFile, kinds: Kinds) -> Iterator[Problem]:
    """Yield what is wrong with a plan beyond its schema."""
    yield from _length_problems(file)
    for (length, size, name), count in file.cells().items():
        what = _misplaced(kinds.named(name), length, size)
        if what:
            yield Problem(("lengths", length, "groups", size, "cells", name), f"{what}, got {count} of it")
    if file.participants:
        yield from _participant_problems(file)
        yield from _row_problems(file)


def _length_problems(file: PlanFile) -> Iterator[Problem]:
    for length, plan in file.lengths.items():
        place: Place = ("lengths", length)
        yield from _sum_problem(place, plan.total, {size: group.total for size, group in plan.groups.items()})
        for size, group in plan.groups.items():
            yield from _sum_problem((*place, "groups", size), group.total, group.cells)
    if not any(plan.total for plan in file.lengths.values()):
        yield Problem(("lengths",), "should plan at least one conversation, got 0")


def _misplaced(kind: Kind | None, length: Length, size: GroupSize) -> str | None:
    if kind is None:
        return "no such kind; kinds.yaml has those that ship, `kinds` in a plan adds its own"
    if kind.group != size:
        return f"has {kind.least} people or more, so it belongs in the group {kind.group!r}"
    if length not in kind.topics:
        return f"has no topics for {length} conversations"
    return None


def _participant_problems(file: PlanFile) -> Iterator[Problem]:
    planned = sum(plan.total for plan in file.lengths.values())
    totals: dict[str, int] = {size: plan.total for size, plan in file.participants.items()}
    if sum(totals.values()) != planned:
        yield Problem(
            ("participants",), f"sums to {sum(totals.values())} ({_sum(totals)}), the lengths to {planned}"
        )
    for size, plan in file.participants.items():
        yield from _sum_problem(
            ("participants", size), plan.total, {name: row.total for name, row in plan.rows.items()}
        )


def _row_problems(file: PlanFile) -> Iterator[Problem]:
    """Yield rows whose kinds are not those of the cells, each once."""
    used = {(size, kind) for _, size, kind in file.cells()}
    seen: dict[tuple[str, str], str] = {}
    for size, name, row in file.rows():
        place: Place = ("participants", size, "rows", name, "kinds")
        for kind in row.kinds:
            if (size, kind) not in used:
                yield Problem(place, f"no length has {kind!r} among {size} people")
            if (size, kind) in seen:
                yield Problem(place, f"{kind!r} is counted in {seen[size, kind]!r} already")
            seen[size, kind] = name
    for size, kind in sorted(used - set(seen)):
        yield Problem(("participants", size), f"{kind!r} is counted in no row")


def _sum_problem(place: Place, total: int, parts: Mapping[str, int]) -> Iterator[Problem]:
    if sum(parts.values()) != total:
        yield Problem(
            (*place, "total"), f"the parts sum to {sum(parts.values())} ({_sum(parts)}), got {total}"
        )


def _sum(parts: Mapping[str, int]) -> str:
    return " + ".join(f"{name} {count}" for name, count in parts.items())
