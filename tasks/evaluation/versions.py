"""Semantic numbers of versions (SPEC 9.1).

Does not know what a version is made of.
"""

from __future__ import annotations

from collections.abc import Iterable

FIRST = "0.1.0"


def next_number(numbers: Iterable[str], *, redesigned: bool, improved: bool) -> str:
    """Return the number after the highest of `numbers`.

    A redesign (base model or persona) is a major change, a measured improvement a minor one, new data
    alone a patch.
    """
    taken = [parse_number(number) for number in numbers]
    if not taken:
        return FIRST
    major, minor, patch = max(taken)
    if redesigned:
        return f"{major + 1}.0.0"
    if improved:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def parse_number(number: str) -> tuple[int, int, int]:
    """Return the three parts of a semantic number."""
    major, minor, patch = (int(part) for part in number.split("."))
    return major, minor, patch
