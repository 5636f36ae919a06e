"""Settings of two versions held against each other, field by field, and their prompts, sentence by sentence.

Does not know what the fields mean. A list of named things (traits, rules) is compared by name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from agents.schemas import Frozen

NAMES = ("rule", "name")
SENTENCE_END = re.compile(r"(?<=[.!?]) ")


class FieldChange(Frozen):
    """A field whose value is another one; None means that it was not there."""

    field: str
    before: str | None
    after: str | None


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """Return every field that differs, in the order in which they are written.

    Mappings are compared by path (`sampling.temperature`), lists of named mappings by name
    (`traits[Kind]`), and such a list as a whole only where nothing but its order changed.
    """
    ours, theirs = dict(_leaves(before)), dict(_leaves(after))
    changes = [
        FieldChange(field=name, before=ours.get(name), after=theirs.get(name))
        for name in dict.fromkeys([*theirs, *ours])
        if ours.get(name) != theirs.get(name)
    ]
    return (*changes, *_reordered(before, after))


def changed_text(before: str, after: str) -> tuple[str, ...]:
    """Return the lines of a unified diff with context, a sentence a line; none where nothing changed.

    Where only line breaks between sentences differ, the lines are the texts' own.
    """
    if before == after:
        return ()
    return _unified(_sentences(before), _sentences(after)) or _unified(before.split("\n"), after.split("\n"))


def _unified(before: Sequence[str], after: Sequence[str]) -> tuple[str, ...]:
    return tuple(difflib.unified_diff(before, after, lineterm=""))[2:]


def _sentences(text: str) -> list[str]:
    return [sentence for line in text.split("\n") for sentence in SENTENCE_END.split(line)] if text else []


def _leaves(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        elif _is_named(value):
            yield from _named_leaves(path, value)
        else:
            yield path, _text(value)


def _named_leaves(path: str, items: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    seen: dict[str, int] = {}
    for item in items:
        key, name = _name(item)
        seen[name] = seen.get(name, 0) + 1
        again = f" {seen[name]}" if seen[name] > 1 else ""
        rest = [(field, value) for field, value in item.items() if field != key]
        shown = (
            _text(rest[0][1])
            if len(rest) == 1
            else ", ".join(f"{field} {_text(value)}" for field, value in rest)
        )
        yield f"{path}[{name}{again}]", shown or "yes"


def _reordered(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldChange]:
    for name in after:
        ours, theirs = before.get(name), after[name]
        if _is_named(ours) and _is_named(theirs):
            old, new = ([_name(item)[1] for item in side] for side in (ours, theirs))
            if old != new and sorted(old) == sorted(new):
                yield FieldChange(field=f"order of {name}", before=", ".join(old), after=", ".join(new))


def _is_named(value: object) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(item, Mapping) and any(name in item for name in NAMES) for item in value)
    )


def _name(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return the field that names an item, and the name."""
    return next((field, str(item[field])) for field in NAMES if field in item)


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
