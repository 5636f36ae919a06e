"""The command that simulates workplace conversations: what a plan comes to, and what a run delivered.

Does not know how conversations are written.
"""

from __future__ import annotations

import typer

from agents.plans.seats import REPLACEMENTS
from agents.prices import Estimate
from deployments.cli.console import ProgressLine, say, say_json, say_table
from tasks.specs import SimulateSpec


def run_simulation(spec: SimulateSpec, *, dry_run: bool, as_json: bool) -> None:
    """Run the simulation and print what it delivered, or with `dry_run` what is planned.

    Exits with 1 when the plan's counts could not be delivered in full.
    """
    if dry_run:
        _say_plan(spec, as_json=as_json)
        return
    from deployments.launch import run_flow
    from flows.simulate import simulate
    from tasks.storage.store import open_store

    report = run_flow(simulate, spec, settings=open_store().settings, listen=ProgressLine())
    if as_json:
        say_json(report.model_dump(mode="json"))
        raise typer.Exit(1 if report.missing else 0)
    say_table(
        [
            cell.model_dump(include={"length", "group", "kind", "requested", "delivered"})
            for cell in report.cells
            if cell.requested
        ],
        empty="Nothing was asked for.",
    )
    say(
        f"\n{report.delivered} of {report.requested} conversations delivered, {report.missing} missing "
        f"({report.failed} failed, {report.dropped} dropped on the way); {report.views} examples.\n"
        f"{report.tokens} tokens of {spec.base_model}, {report.example_tokens} in all examples; "
        f"training on them: {_dollars(report.training)}."
    )
    say(f"{report.examples}\n{report.conversations}\n{report.metadata}")
    if report.missing:
        say(
            f"What is missing failed or was dropped {REPLACEMENTS + 1} times; the last file says why.\n"
            "The same command tries failed ones again; for dropped ones give a stronger --model and a --name."
        )
        raise typer.Exit(1)


def _say_plan(spec: SimulateSpec, *, as_json: bool) -> None:
    """Print the cells at the run's size, how far fitting moved them, and what training would cost."""
    from agents.prices import load_prices
    from tasks.converse import seats_of

    seats = seats_of(spec)
    bands = seats.plan.kinds.bands
    rows: list[dict[str, object]] = []
    tokens = 0
    for cell, count in zip(seats.plan.cells, seats.counts, strict=True):
        tokens += count * sum(bands[cell.length].tokens) // 2
        rows.append({**cell.model_dump(), "moved": cell.moved, "requested": count})
    prices = load_prices()
    if as_json:
        say_json({"cells": rows, "tokens": tokens, "training": prices.estimate(tokens).model_dump()})
        return
    say_table(rows, empty="Nothing is planned.")
    say(
        f"\n{seats.total} conversations; no cell was moved by more than "
        f"{max(abs(cell.moved) for cell in seats.plan.cells)} to meet the plan's totals."
    )
    say(f"In the middle of their bands {tokens} tokens, training {_dollars(prices.estimate(tokens))}.")
    for size in prices.references:
        whole = size.conversations * size.tokens_each
        compared = f"{size.conversations} × {size.tokens_each} = {whole} tokens"
        say(f"For comparison: {compared}, {_dollars(prices.estimate(whole))}.")


def _dollars(estimate: Estimate) -> str:
    return f"{estimate.low:.2f} to {estimate.high:.2f} USD"
