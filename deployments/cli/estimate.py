"""What a run will cost, shown before it begins, and the question whether a budget that will not do is meant.

Does not know how the estimate is made.
"""

from __future__ import annotations

import sys

import typer

from agents.errors import InputError
from deployments.cli.console import say, say_json, say_table
from tasks.estimate import estimate_run
from tasks.specs import GenerateSpec
from tasks.storage.drafts import spent_on
from tasks.storage.store import Store


def say_estimate(store: Store, spec: GenerateSpec, *, as_json: bool) -> None:
    """Print what is missing of the run, stage by stage."""
    estimate = estimate_run(store, spec)
    if as_json:
        say_json({**estimate.model_dump(mode="json"), "tokens": estimate.tokens, "cost": estimate.cost})
        return
    rows = [stage.model_dump() | {"cost": _dollars(stage.cost)} for stage in estimate.stages]
    say_table(rows, empty="Nothing is missing.")
    say(f"\n{estimate.tokens} tokens, {_dollars(estimate.cost)}, if the first model of each chain answers.")


def agree(store: Store, spec: GenerateSpec, *, yes: bool) -> None:
    """Ask whether to begin with a budget below the estimate; without a terminal refuse it unless `yes`."""
    if spec.budget is None or yes:
        return
    estimate = estimate_run(store, spec)
    left = spec.budget - spent_on(store, spec.name)
    if estimate.cost is None or estimate.cost <= left:
        return
    told = (
        f"About {_dollars(estimate.cost)} are needed, and {_dollars(max(0.0, left))} of the budget are left."
    )
    if not sys.stdin.isatty():
        raise InputError(told, "Give a larger --budget, or --yes to write what it pays for.")
    typer.confirm(f"{told} Write what it pays for?", abort=True)


def _dollars(cost: float | None) -> str:
    return "an unknown price" if cost is None else f"{cost:.4f} USD"
