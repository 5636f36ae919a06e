"""What a simulation run came to: planned and delivered per cell, tokens, the cost of training on it.

Does not know how it is kept or shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agents.conversations import Spoken, views
from agents.kinds import GroupSize, Length
from agents.plans import Plan
from agents.plans.seats import Seats
from agents.prices import Estimate, load_prices
from agents.schemas import Frozen, Messages
from agents.tariffs import total_cost
from tasks.specs import SimulateSpec
from tasks.storage.tables import Draft


class CellReport(Frozen):
    """A cell of the plan at the run's size: asked for and delivered.

    `written` and `fitted` are the count in the plan's file and the one that its totals made of it.
    """

    length: Length
    group: GroupSize
    kind: str
    written: int
    fitted: int
    requested: int
    delivered: int


class SimulateReport(Frozen):
    """What a run came to; `missing` could not be delivered, `refused` counts conversations asked for again.

    `tokens` are those of the transcripts, `example_tokens` those of all views; training is in US dollars.
    """

    name: str
    plan: str
    requested: int
    delivered: int
    missing: int
    dropped: int
    failed: int
    refused: int
    views: int
    tokens: int
    example_tokens: int
    training: Estimate
    completion_tokens: int
    model_seconds: float
    cells: tuple[CellReport, ...]
    examples: Path
    conversations: Path
    metadata: Path


class Kept(Frozen):
    """An accepted conversation with its row."""

    position: int
    spoken: Spoken
    model: str
    attempts: int
    created_at: str

    @property
    def views(self) -> list[tuple[str, Messages]]:
        """Return each participant's persona and what it saw."""
        return views(self.spoken)


def accepted(rows: Sequence[Draft]) -> Iterator[Kept]:
    """Yield the accepted conversations of a run."""
    for row in rows:
        if row.status == "accepted":
            yield Kept(
                position=row.position,
                spoken=Spoken.model_validate_json(row.text),
                model=row.model,
                attempts=row.attempts,
                created_at=row.created_at,
            )


def simulation_report(
    spec: SimulateSpec, seats: Seats, kept: Sequence[Kept], rows: Sequence[Draft], folder: Path
) -> SimulateReport:
    """Return what a run came to; `folder` is where its files lie."""
    tokens = sum(one.spoken.tokens for one in kept)
    statuses = Counter(row.status for row in rows)
    return SimulateReport(
        name=spec.name,
        plan=seats.plan.name,
        requested=seats.total,
        delivered=len(kept),
        missing=seats.total - len(kept),
        dropped=statuses["dropped"],
        failed=statuses["failed"],
        refused=sum(row.attempts - (row.status == "accepted") for row in rows if row.status != "failed"),
        views=sum(len(one.views) for one in kept),
        tokens=tokens,
        example_tokens=sum(one.spoken.example_tokens for one in kept),
        training=load_prices().estimate(tokens),
        completion_tokens=sum(row.completion_tokens for row in rows),
        model_seconds=round(sum(row.seconds for row in rows), 3),
        cells=tuple(_cells(seats, kept)),
        examples=folder / f"{spec.name}.jsonl",
        conversations=folder / f"{spec.name}_conversations.jsonl",
        metadata=folder / f"{spec.name}_metadata.json",
    )


def _cells(seats: Seats, kept: Sequence[Kept]) -> Iterator[CellReport]:
    delivered = Counter((one.spoken.scene.length, one.spoken.scene.kind) for one in kept)
    for cell, count in zip(seats.plan.cells, seats.counts, strict=True):
        yield CellReport(
            length=cell.length,
            group=cell.group,
            kind=cell.kind,
            written=cell.written,
            fitted=cell.planned,
            requested=count,
            delivered=delivered[cell.length, cell.kind],
        )


def simulation_metadata(
    spec: SimulateSpec, seats: Seats, report: SimulateReport, rows: Sequence[Draft]
) -> dict[str, Any]:
    """Return all that is known of a run but its conversations."""
    prices = load_prices()
    figures = report.model_dump(mode="json")
    counts = ("requested", "delivered", "missing", "dropped", "failed", "refused", "views")
    return {
        "parameters": spec.model_dump(mode="json"),
        "counts": {name: figures[name] for name in counts},
        "cells": figures["cells"],
        "totals": moved_totals(seats.plan),
        "tokens": {
            "base_model": spec.base_model,
            "conversations": report.tokens,
            "examples": report.example_tokens,
            "prompt": sum(row.prompt_tokens for row in rows),
            "completion": report.completion_tokens,
        },
        "training_cost_usd": {
            "estimate": figures["training"],
            "prices": [price.model_dump() for price in prices.training],
            "references": [
                {**size.model_dump(), **prices.estimate(size.conversations * size.tokens_each).model_dump()}
                for size in prices.references
            ],
        },
        "failures": [
            {"position": row.position, "seat": row.position % seats.total, "status": row.status,
             "cell": f"{seats.cell(row.position).length} {seats.cell(row.position).kind}",
             "reasons": json.loads(row.reasons)}
            for row in rows
            if row.status != "accepted"
        ],
        "cost": total_cost(row.cost for row in rows),
        "durations": {
            "model_seconds": report.model_seconds,
            "started_at": min((row.created_at for row in rows), default=None),
            "finished_at": max((row.created_at for row in rows), default=None),
        },
    }  # fmt: skip


def moved_totals(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan by length and group: as its file counts, as its totals demand, and the difference."""
    table: dict[tuple[str, str], list[int]] = {}
    for cell in plan.cells:
        sums = table.setdefault((cell.length, cell.group), [0, 0])
        sums[0] += cell.written
        sums[1] += cell.planned
    return [
        {"length": length, "group": group, "written": was, "fitted": now, "moved": now - was}
        for (length, group), (was, now) in table.items()
    ]
