"""Personas in YAML: the ones that ship, one of your own by its path, and the way back to YAML.

Does not know personas that were made in the pages; those are stored and only exported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from agents.definitions import (
    Problem,
    parse_definition,
    problems_of,
    read_text,
    shorten,
    validate_definition,
)
from agents.errors import InputError, NotFound, PersonaInvalid
from agents.plugins import load_plugin, plugins
from agents.rules import open_rule
from agents.schemas import Persona, RuleSpec

AGENT_TYPES = (
    "collaborative",
    "manager",
    "developer",
    "client",
    "hr",
    "qa",
    "property_manager",
    "coder",
    "sales",
    "support",
    "technical_support",
    "data_analyst",
    "custom",
)
FOLDER = Path(__file__).parent
SUFFIXES = {".yaml", ".yml"}
RARE_BREAKS = ("\x85", "\u2028", "\u2029")


@cache
def shipped_personas() -> tuple[str, ...]:
    """Return the names of the personas that ship, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_persona(name_or_path: str | Path) -> Persona:
    """Return a persona that ships, by name, or one of your own, by the path of its YAML file.

    Raises NotFound with the names that ship, PersonaInvalid with file, line and field of each problem.
    """
    if is_path(name_or_path):
        return _load_file(Path(name_or_path))
    if str(name_or_path) in shipped_personas():
        return _load_shipped(str(name_or_path))
    raise NotFound(
        f"There is no persona {str(name_or_path)!r}.",
        f"Known: {', '.join(shipped_personas())}; or give the path of a YAML file of your own.",
    )


def is_path(name_or_path: str | Path) -> bool:
    """Tell whether this means a file of one's own and not a persona by name."""
    path = Path(name_or_path)
    return path.suffix in SUFFIXES or len(path.parts) > 1


@cache
def _load_shipped(name: str) -> Persona:
    path = FOLDER / f"{name}.yaml"
    return parse_persona(read_text(path), path.name)


def _load_file(path: Path) -> Persona:
    persona = parse_persona(read_text(path), str(path))
    named = persona.data.conversations
    if named is None or _is_bare(named):
        return persona
    found = str(path.resolve().parent / named)
    return persona.model_copy(update={"data": persona.data.model_copy(update={"conversations": found})})


def parse_persona(text: str, source: str = "persona") -> Persona:
    """Return the persona of a YAML text; `source` names it in messages.

    Raises PersonaInvalid with a line `source:line: field: what, got value` for each problem.
    """
    try:
        definition = parse_definition(text, source)
        persona = validate_definition(definition, Persona)
    except InputError as error:
        raise PersonaInvalid(error.message, error.remedy) from error
    problems = [*_type_problems(persona), *_rule_problems(persona)]
    if problems:
        raise PersonaInvalid(definition.report(problems))
    return persona


def _type_problems(persona: Persona) -> Iterator[Problem]:
    known = {*AGENT_TYPES, *plugins("agent_types")}
    if persona.agent_type not in known:
        yield Problem(
            ("agent_type",),
            f"is not one of {', '.join(sorted(known))}, got {shorten(persona.agent_type)}",
        )


def _rule_problems(persona: Persona) -> Iterator[Problem]:
    for index, spec in enumerate(persona.validation):
        yield from _problems_of_rule(spec, ("validation", index))


def _problems_of_rule(spec: RuleSpec, place: tuple[int | str, ...]) -> Iterator[Problem]:
    try:
        open_rule(spec)
    except NotFound:
        known = ", ".join(sorted(plugins("rules")))
        yield Problem((*place, "rule"), f"is not one of {known}, got {shorten(spec.rule)}")
    except ValidationError as error:
        yield from problems_of(error, load_plugin("rules", spec.rule), place)


def persona_yaml(persona: Persona) -> str:
    """Return the persona as YAML that loads back equal; fields that have their default are left out."""
    data = persona.model_dump(mode="json", exclude_defaults=True)
    return yaml.dump(data, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=100)


def _represent_text(dumper: Any, text: str) -> yaml.Node:
    """Write a text of several lines as a block, and one with rare line breaks in escapes."""
    style = None
    if any(mark in text for mark in RARE_BREAKS):
        style = '"'
    elif "\n" in text and all(line == line.strip() for line in text.split("\n")):
        style = "|"
    node: yaml.Node = dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)
    return node


class _Readable(yaml.SafeDumper):
    """Writes texts the way people write them."""

    yaml_representers: ClassVar[dict[Any, Any]] = {**yaml.SafeDumper.yaml_representers, str: _represent_text}


def conversations_path(persona: Persona) -> Path:
    """Return the file of the persona's conversations: shipped for a bare name, otherwise a path.

    Raises NotFound when the persona names none, or one that is not there.
    """
    named = persona.data.conversations
    if named is None:
        raise NotFound(
            f"The persona {persona.name!r} names no conversations.",
            "Name a JSONL file in `data: {conversations: …}`.",
        )
    path = FOLDER / named if _is_bare(named) else Path(named)
    if not path.is_file():
        raise NotFound(
            f"The conversations {named!r} of {persona.name!r} are not at {path}.",
            "A bare file name means a file that ships; write ./NAME for one beside the persona's file.",
        )
    return path


def _is_bare(name: str) -> bool:
    return "/" not in name and "\\" not in name
