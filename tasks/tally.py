"""What a generation run came to: counted draft by draft, in memory that does not grow with the run.

Does not know what is done with the drafts, nor where the figures are shown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agents.quality import SHORTENED
from agents.schemas import Frozen, fingerprint
from agents.tariffs import total_cost
from tasks.storage.drafts import PAGE, Piece, Pieces, pieces, span
from tasks.storage.store import Store

REASONS = (
    ("near duplicate", re.compile(r"nearly repeats")),
    ("cut at the token limit", re.compile(r"token limit")),
    ("traits not shown", re.compile(r"does not show the trait|judge of traits")),
    ("too short or too long", re.compile(r"fewer than|it has \d+|characters|write more|too long|too short")),
    ("nearly the chosen answer", re.compile(r"same as the chosen")),
    ("names what it should reveal", re.compile(r"what it should reveal")),
    ("declines or speaks as a machine", re.compile(r"declines or speaks")),
    ("placeholder", re.compile(r"placeholder")),
    ("leaked prompt", re.compile(r"its instructions")),
    ("goes round in circles", re.compile(r"round in circles|so say it once")),
    ("copies the document", re.compile(r"copies the document")),
)
SAMPLES = 3
OTHER = "a rule of the persona"
NO_ANSWER = "no model answered"


class Spread(Frozen):
    """Lengths: the shortest, the one in the middle, the longest."""

    least: int
    median: int
    most: int


class Usage(Frozen):
    """What a model did in a run; `asks` counts answers, `cost` is US dollars, None where not known."""

    texts: int = 0
    asks: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float | None = 0.0


def pages(store: Store, run: str) -> Iterator[dict[int, Pieces]]:
    """Yield the settled drafts of a run by position, in order, a page of positions in memory at a time."""
    first, last = span(store, run)
    for start in range(first, last + 1, PAGE):
        found: dict[int, Pieces] = {}
        for piece in pieces(store, run, start, start + PAGE - 1):
            found.setdefault(piece.position, {})[piece.stage] = piece
        yield dict(sorted(found.items()))


class Facts(NamedTuple):
    """What a card says of one example; `kind` is its document type or its length, words are by part."""

    origin: str
    category: str
    kind: str
    words: Mapping[str, int]
    held_out: bool
    question: str
    answer: str


@dataclass
class Tally:
    """Sums over the drafts of a run; floats are added in the order of the positions."""

    accepted: int = 0
    dropped: int = 0
    failed: int = 0
    refused: int = 0
    shortened: int = 0
    held_out: int = 0
    started_at: str | None = None
    finished_at: str | None = None
    words: dict[str, Counter[int]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, Facts]] = field(default_factory=list)  # drawn by a hash
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, found: Pieces) -> None:
        """Count what the stages came to at one position."""
        for piece in found.values():
            self._count(piece)

    def example(self, facts: Facts) -> None:
        """Count what was accepted as an example or a conversation."""
        self.accepted += 1
        self.held_out += facts.held_out
        self.categories[facts.category] += 1
        self.kinds[facts.kind] += 1
        for part, count in facts.words.items():
            self.words.setdefault(part, Counter())[count] += 1
        drawn = (fingerprint("sample", facts.origin), facts)
        self.samples = sorted([*self.samples, drawn], key=lambda one: one[0])[:SAMPLES]

    def total(self, name: str) -> float:
        """Return a sum over all models."""
        return sum(usage[name] or 0.0 for _, usage in sorted(self.models.items()))

    @property
    def cost(self) -> float | None:
        """Return what the run cost in US dollars, None where a price is not known."""
        return total_cost(usage["cost"] for _, usage in sorted(self.models.items()))

    def usages(self) -> dict[str, Usage]:
        """Return what each model did, by address."""
        return {model: Usage.model_validate(used) for model, used in sorted(self.models.items())}

    def _count(self, piece: Piece) -> None:
        self.dropped += piece.status == "dropped"
        self.failed += piece.status == "failed"
        self.started_at = min(self.started_at or piece.created_at, piece.created_at)
        self.finished_at = max(self.finished_at or piece.created_at, piece.created_at)
        if piece.status == "failed":
            self.reasons[NO_ANSWER] += 1
            return
        self.refused += piece.attempts - (piece.status == "accepted")
        if piece.reasons != "[]":
            told = json.loads(piece.reasons)
            cut = sum(SHORTENED in reason for reason in told)
            self.shortened += cut
            self.reasons.update(kind_of(reason) for reason in told if SHORTENED not in reason)
        used = self.models.setdefault(piece.model, dict.fromkeys(Usage.model_fields, 0))
        used["texts"] += 1
        used["asks"] += piece.attempts
        for name in ("prompt_tokens", "completion_tokens", "seconds"):
            used[name] += getattr(piece, name)
        used["cost"] = total_cost((used["cost"], piece.cost))


def kind_of(reason: str) -> str:
    """Return the kind that a reason for a refusal belongs to."""
    return next((kind for kind, pattern in REASONS if pattern.search(reason)), OTHER)


def spread(counts: Counter[int]) -> Spread:
    """Return least, median (the lower of two) and most of counted lengths; zeros when there are none."""
    half, seen, median = (counts.total() + 1) // 2, 0, 0
    for length in sorted(counts):
        if seen < half:
            median = length
        seen += counts[length]
    return Spread(least=min(counts, default=0), median=median, most=max(counts, default=0))
