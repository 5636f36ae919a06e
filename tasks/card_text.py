"""A data card and its Markdown: what was asked for and what is missing first.

Does not know how the figures were counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from agents.schemas import Frozen
from tasks.tally import Spread, Usage


class Sample(Frozen):
    """An example as an excerpt."""

    category: str
    kind: str
    question: str
    answer: str


class Card(Frozen):
    """What is in a run or a dataset; of a dataset, models and reasons are those of the runs behind it.

    `kinds` are document types or lengths, `refused` counts answers, `words` is by part of an example.
    """

    name: str
    what: Literal["run", "dataset"]
    persona: str
    requested: int | None
    accepted: int
    dropped: int
    failed: int
    refused: int
    shortened: int
    duplicates_refused: int
    reasons: dict[str, int]
    categories: dict[str, int]
    kinds: dict[str, int]
    words: dict[str, Spread]
    models: dict[str, Usage]
    split: dict[str, int]
    how_split: str
    samples: tuple[Sample, ...]
    limits: tuple[str, ...]


def card_text(card: Card) -> str:
    """Return a card as Markdown."""
    return "\n".join(
        [
            f"# {card.what.capitalize()} {card.name} for {card.persona}",
            "",
            f"**{_headline(card)}**",
            *_limits(card),
            *_counted("Categories", card.categories),
            *_counted("Kinds", card.kinds),
            *_table("Words", ("", "least", "median", "most"), _lengths(card)),
            *_refusals(card),
            *_table(
                "Models", ("", "texts", "answers", "tokens in", "tokens out", "seconds", "USD"), _models(card)
            ),
            *_table("Split", ("", "examples"), card.split.items()),
            *([card.how_split] if card.split else []),
            *_samples(card),
        ]
    )


def _headline(card: Card) -> str:
    if card.requested is None:
        return f"{card.accepted} examples."
    missing = card.requested - card.accepted
    if not missing:
        return f"All {card.requested} that were asked for are there."
    why = {
        "dropped because every answer was refused": card.dropped,
        "failed because no model answered": card.failed,
        "not written yet": missing - card.dropped - card.failed,
    }
    told = ", ".join(f"{count} {what}" for what, count in why.items() if count > 0)
    return f"Only {card.accepted} of {card.requested} are there: {told}."


def _limits(card: Card) -> Iterator[str]:
    yield from ("", "## Limits", "")
    yield from (f"- {limit}" for limit in card.limits)


def _counted(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    if not counts:
        return
    least, most = min(counts.values()), max(counts.values())
    even = f"{least} each" if least == most else f"between {least} and {most} each"
    yield from _table(f"{title}: {len(counts)}, {even}", ("", "examples"), counts.items())


def _lengths(card: Card) -> Iterator[tuple[object, ...]]:
    for part, spread in card.words.items():
        yield part, spread.least, spread.median, spread.most


def _refusals(card: Card) -> Iterator[str]:
    yield from ("", "## Refused", "")
    yield (
        f"{card.refused} answers were refused, {card.duplicates_refused} of them for nearly repeating an "
        f"earlier text; {card.shortened} texts were cut at the token limit and kept in part."
    )
    if card.reasons:
        yield from _table(None, ("reason", "times"), card.reasons.items())


def _models(card: Card) -> Iterator[tuple[object, ...]]:
    for model, used in card.models.items():
        tokens = (used.prompt_tokens, used.completion_tokens)
        yield model, used.texts, used.asks, *tokens, f"{used.seconds:.1f}", _dollars(used.cost)


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:.4f}"


def _samples(card: Card) -> Iterator[str]:
    if card.samples:
        yield from ("", "## Samples")
    for sample in card.samples:
        yield from ("", f"*{sample.category}, {sample.kind}*", "", f"> {sample.question}", ">")
        yield f"> → {sample.answer}"


def _table(title: str | None, head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    found = list(rows)
    if not found:
        return
    yield from ("", f"## {title}", "") if title else ("",)
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(map(str, row))} |" for row in found)
    yield ""
