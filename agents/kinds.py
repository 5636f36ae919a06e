"""The kinds of workplace conversations: who takes part, what it is about, how long each length is.

Does not know how many of a kind are wanted, nor how one is written. The lists are in kinds.yaml, for
people to edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from agents.definitions import Definition, Place, Problem, parse_definition, read_text, validate_definition
from agents.errors import InputError, NotFound, PersonaInvalid
from agents.personas import load_persona
from agents.schemas import Frozen, Slug, Text

Length = Literal["short", "medium", "long"]
GroupSize = Literal["2", "3", "4+"]
Range = tuple[int, int]
LENGTHS: tuple[Length, ...] = get_args(Length)
FILE = Path(__file__).with_suffix(".yaml")


class Band(Frozen):
    """What a length stands for; an exchange is one turn by anybody, tokens are the base model's."""

    exchanges: Range
    tokens: Range
    stands_for: Text


class Kind(Frozen):
    """A named kind of conversation: its cast, the opener first, and what it is about at each length.

    `people` is how many of the cast take part, least and most; everybody when not given.
    """

    name: Slug
    cast: tuple[Text, ...] = Field(min_length=2)
    people: Range | None = None
    topics: dict[Length, tuple[Text, ...]]

    @property
    def least(self) -> int:
        """Return the fewest people that take part."""
        return self.people[0] if self.people else len(self.cast)

    @property
    def most(self) -> int:
        """Return the most people that take part."""
        return self.people[1] if self.people else len(self.cast)

    @property
    def group(self) -> GroupSize:
        """Return the group of sizes that the kind belongs to."""
        return "2" if self.least == 2 else "3" if self.least == 3 else "4+"


class Kinds(Frozen):
    """The bands, the kinds, and what makes two conversations of one topic different."""

    bands: dict[Length, Band]
    projects: tuple[Text, ...] = Field(min_length=1)
    circumstances: tuple[Text, ...] = Field(min_length=1)
    kinds: tuple[Kind, ...]

    def named(self, name: str) -> Kind | None:
        """Return the kind of that name, if there is one; of two the later, which is a plan's own."""
        return next((kind for kind in reversed(self.kinds) if kind.name == name), None)


@cache
def load_kinds(path: Path = FILE) -> Kinds:
    """Return the kinds of a file; raise InputError with file, line and field of each problem."""
    definition = parse_definition(read_text(path), path.name)
    kinds = validate_definition(definition, Kinds)
    refuse(definition, [*_band_problems(kinds), *kind_problems(kinds.kinds, kinds.bands)])
    return kinds


def refuse(definition: Definition, problems: Iterable[Problem]) -> None:
    """Raise InputError with a line for each problem, if there is any."""
    found = list(problems)
    if found:
        raise InputError(definition.report(found))


def _band_problems(kinds: Kinds) -> Iterator[Problem]:
    for length in LENGTHS:
        band = kinds.bands.get(length)
        if band is None:
            yield Problem(("bands",), f"{length} is missing")
            continue
        for name in ("exchanges", "tokens"):
            low, high = getattr(band, name)
            if not 1 <= low <= high:
                yield Problem(("bands", length, name), f"should run from low to high, got {low} to {high}")


def kind_problems(kinds: tuple[Kind, ...], bands: dict[Length, Band]) -> Iterator[Problem]:
    """Yield what is wrong with kinds beyond their schema: cast, number of people, topics."""
    for index, kind in enumerate(kinds):
        place: Place = ("kinds", index)
        yield from _cast_problems(kind, place)
        if not 2 <= kind.least <= kind.most <= len(kind.cast):
            yield Problem(
                (*place, "people"),
                f"should lie between 2 and the cast's {len(kind.cast)}, got {kind.least} to {kind.most}",
            )
        elif kind.most > 3 > kind.least or kind.least == 3 < kind.most:
            yield Problem(
                (*place, "people"),
                f"should stay in one group: 2, 3, or 4 and more, got {kind.least} to {kind.most}",
            )
        for length, topics in kind.topics.items():
            if not topics:
                yield Problem((*place, "topics", length), "should have at least one topic")
            if length in bands and kind.least > bands[length].exchanges[1]:
                yield Problem(
                    (*place, "topics", length),
                    f"{kind.least} people cannot all speak in {bands[length].exchanges[1]} exchanges",
                )


def _cast_problems(kind: Kind, place: Place) -> Iterator[Problem]:
    if len(set(kind.cast)) < len(kind.cast):
        yield Problem((*place, "cast"), f"names somebody twice, got {', '.join(kind.cast)}")
    for at, name in enumerate(kind.cast):
        try:
            load_persona(name)
        except (NotFound, PersonaInvalid) as error:
            yield Problem((*place, "cast", at), str(error))
