"""What training on so many tokens costs, from prices that people edit in prices.yaml.

Does not know who trains; an estimate is a range, never a promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pydantic import Field

from agents.definitions import Problem, parse_definition, read_text, validate_definition
from agents.kinds import refuse
from agents.schemas import Frozen

FILE = Path(__file__).with_suffix(".yaml")


class Price(Frozen):
    """US dollars per million tokens, low and high, for orders up to a size; without one, for the rest."""

    up_to_tokens: int | None = Field(default=None, gt=0)
    low: float = Field(ge=0.0)
    high: float = Field(ge=0.0)


class Reference(Frozen):
    """A size to compare with."""

    conversations: int = Field(gt=0)
    tokens_each: int = Field(gt=0)


class Estimate(Frozen):
    """What training on the tokens would cost, in US dollars."""

    tokens: int
    low: float
    high: float


class Prices(Frozen):
    """All prices, the smaller orders first, and the sizes to compare with."""

    training: tuple[Price, ...] = Field(min_length=1)
    references: tuple[Reference, ...] = ()

    def estimate(self, tokens: int) -> Estimate:
        """Return the cost of training on this many tokens."""
        price = next(p for p in self.training if p.up_to_tokens is None or tokens <= p.up_to_tokens)
        millions = tokens / 1_000_000
        return Estimate(
            tokens=tokens, low=round(price.low * millions, 2), high=round(price.high * millions, 2)
        )


@cache
def load_prices(path: Path = FILE) -> Prices:
    """Return the prices of a file; raise InputError with file, line and field of each problem."""
    definition = parse_definition(read_text(path), path.name)
    prices = validate_definition(definition, Prices)
    refuse(definition, _problems(prices))
    return prices


def _problems(prices: Prices) -> Iterator[Problem]:
    sizes = [price.up_to_tokens for price in prices.training]
    bounded = [size for size in sizes[:-1] if size is not None]
    if len(bounded) != len(sizes) - 1 or sizes[-1] is not None or bounded != sorted(set(bounded)):
        yield Problem(
            ("training",), f"should go up in up_to_tokens and end with a price without, got {sizes}"
        )
    for index, price in enumerate(prices.training):
        if price.low > price.high:
            yield Problem(
                ("training", index), f"low should not be above high, got {price.low} and {price.high}"
            )
