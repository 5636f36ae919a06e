"""Read definitions that people write: a YAML text into its schema, every problem with its line.

Does not know what is defined, nor where the text came from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from agents.errors import InputError, NotFound

Place = tuple[int | str, ...]
Schema = TypeVar("Schema", bound=BaseModel)
SHOWN = 80


@dataclass(frozen=True)
class Problem:
    """What is wrong at a place of a definition, such as `("sampling", "temperature")`."""

    place: Place
    what: str


@dataclass(frozen=True)
class Definition:
    """A parsed YAML text, with the line of every place in it, counted from 1."""

    source: str
    data: Any
    lines: dict[Place, int]

    def report(self, problems: Iterable[Problem]) -> str:
        """Return a line for each problem in the order of the text: `file:line: field: what`."""
        rows = sorted((self._line(p.place), _path(p.place), p.what) for p in problems)
        return "\n".join(f"{self.source}:{line}: {path}: {what}" for line, path, what in rows)

    def _line(self, place: Place) -> int:
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_text(path: Path) -> str:
    """Return the text of a definition; raise NotFound when there is no such file to read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}.", "Save it as UTF-8.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotFound(f"{path} cannot be read: {reason}.", "Give a file that is there.") from error


def parse_definition(text: str, source: str) -> Definition:
    """Parse YAML; raise InputError with file and line for text that is not YAML or repeats a field."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(error, "problem", None) or str(error)
        raise InputError(f"{source}:{line}: file: not YAML, {what}") from error
    lines, repeated = _locate(node) if node else ({}, [])
    definition = Definition(source=source, data=data, lines=lines)
    if repeated:
        raise InputError(definition.report(repeated))
    return definition


def _locate(root: yaml.Node) -> tuple[dict[Place, int], list[Problem]]:
    """Return the line of every place in a document, and the fields that are given twice."""
    lines: dict[Place, int] = {(): root.start_mark.line + 1}
    repeated: list[Problem] = []
    seen: set[int] = set()
    todo: list[tuple[Place, yaml.Node]] = [((), root)]
    while todo:
        place, node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for part, line, value in _children(node):
            below = (*place, part)
            if below in lines:
                repeated.append(Problem(below, f"given twice, first in line {lines[below]}"))
            lines[below] = line
            todo.append((below, value))
    return lines, repeated


def _children(node: yaml.Node) -> Iterator[tuple[int | str, int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield index, value.start_mark.line + 1, value


def validate_definition(definition: Definition, schema: type[Schema]) -> Schema:
    """Return the definition as its schema; raise InputError with a line for each problem."""
    try:
        return schema.model_validate(definition.data)
    except ValidationError as error:
        raise InputError(definition.report(problems_of(error, schema))) from error


def problems_of(error: ValidationError, schema: type[BaseModel], prefix: Place = ()) -> list[Problem]:
    """Return what a schema found wrong, in our words, with the value and the nearest known field."""
    return [
        Problem((*prefix, *found["loc"]), _what(found["type"], found["loc"], schema, found))
        for found in error.errors(include_url=False, include_context=False)
    ]


def _what(kind: str, place: Place, schema: type[BaseModel], found: Any) -> str:
    if kind == "missing":
        return "this field is required"
    if kind == "extra_forbidden":
        known = _fields_at(schema, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
        return f"unknown field, {advice}"
    message = found["msg"][:1].lower() + found["msg"][1:]
    if kind in {"model_type", "model_attributes_type"}:
        message = "should be a mapping of fields"
    return f"{message.removeprefix('value error, ')}, got {shorten(found['input'])}"


def shorten(value: object) -> str:
    """Return a value as it is shown in a message, at most about 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"


def _fields_at(schema: type[BaseModel], place: Place) -> list[str]:
    """Return the names of the fields that the schema knows at a place."""
    model = schema
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _path(place: Place) -> str:
    """Return a place as people write it: `validation[2].max_characters`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".") or "file"
