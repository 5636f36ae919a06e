"""What a call costs: US dollars per million tokens read and written, by model address.

Does not know who reports a price, and never takes an unknown one for nothing: that is None.
"""

from __future__ import annotations

from collections.abc import Iterable

from agents.chat import Tariff
from agents.errors import InputError

FREE = Tariff(prompt=0.0, completion=0.0)


def parse_tariffs(text: str) -> dict[str, Tariff]:
    """Return tariffs from comma-separated `ADDRESS=READ/WRITTEN`; raise InputError for one that is none."""
    found = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        address, _, prices = entry.rpartition("=")
        prompt, _, completion = prices.partition("/")
        try:
            if "/" not in address:
                raise ValueError(address)
            found[address.strip()] = Tariff(prompt=float(prompt), completion=float(completion))
        except ValueError as error:
            raise InputError(
                f"{entry!r} is no price.",
                "Write provider/model=READ/WRITTEN in US dollars per million tokens: openai/gpt-5=1.25/10.",
            ) from error
    return found


def total_cost(costs: Iterable[float | None]) -> float | None:
    """Return the sum in US dollars, None as soon as one of them is not known."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total
