"""Semantic numbers of versions (SPEC 9.1).

Does not know what a version is made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Change = Literal["first", "redesign", "improvement", "data", "refresh"]
FIRST = "0.1.0"


def change_of(*, first: bool, redesigned: bool, refreshed: bool, improved: bool) -> Change:
    """Return what makes a new version another one; the first that applies names it.

    A refresh trains the same data anew, so what it gains is chance and makes no minor number.
    """
    if first:
        return "first"
    if redesigned:
        return "redesign"
    if refreshed:
        return "refresh"
    return "improvement" if improved else "data"


def next_number(numbers: Iterable[str], change: Change) -> str:
    """Return the number after the highest of `numbers`.

    A redesign (base model or persona) is a major change, a measured improvement a minor one, new data
    alone and a refresh a patch.
    """
    taken = [parse_number(number) for number in numbers]
    if not taken:
        return FIRST
    major, minor, patch = max(taken)
    if change == "redesign":
        return f"{major + 1}.0.0"
    if change == "improvement":
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def parse_number(number: str) -> tuple[int, int, int]:
    """Return the three parts of a semantic number."""
    major, minor, patch = (int(part) for part in number.split("."))
    return major, minor, patch
