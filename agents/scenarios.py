"""The scenario categories and document types that synthetic ideas are spread over.

Does not know what is made of them. The lists are in scenarios.yaml, for people to edit.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from pydantic import Field

from agents.definitions import parse_definition, read_text, validate_definition
from agents.schemas import Frozen, Slug, Text

FILE = Path(__file__).with_suffix(".yaml")


class Scenario(Frozen):
    """A category of situations, with concrete ones to start from."""

    name: Slug
    description: Text
    situations: tuple[Text, ...] = Field(min_length=1)


class Scenarios(Frozen):
    """All categories and document types, and how positions of a run are spread over them."""

    document_types: tuple[Text, ...] = Field(min_length=1)
    categories: tuple[Scenario, ...] = Field(min_length=1)

    def situation(self, position: int, seed: int) -> tuple[Scenario, str]:
        """Return category and situation of a position of a run, counted from 0.

        Every round of positions takes each category once, in an order that the seed shuffles, and
        every round takes the next situation of each category.
        """
        round_number, place = divmod(position, len(self.categories))
        scenario = self.order(seed)[place]
        start = random.Random(f"{seed}:{scenario.name}").randrange(len(scenario.situations))  # noqa: S311
        return scenario, scenario.situations[(start + round_number) % len(scenario.situations)]

    def document_type(self, position: int) -> str:
        """Return the document type of a position; over the rounds each category meets each type."""
        round_number = position // len(self.categories)
        shift = round_number + round_number // len(self.document_types)
        return self.document_types[(position + shift) % len(self.document_types)]

    def order(self, seed: int) -> list[Scenario]:
        """Return the categories in the order in which every round of positions takes them."""
        return random.Random(seed).sample(self.categories, len(self.categories))  # noqa: S311


@cache
def load_scenarios(path: Path = FILE) -> Scenarios:
    """Return the scenarios of a file; raise InputError with file, line and field of each problem."""
    return validate_definition(parse_definition(read_text(path), path.name), Scenarios)
