"""Simulate: a plan becomes workplace conversations, and those become examples of everybody who took part.

Does not know how a conversation is written. A run that was killed continues where it stopped.
"""

from __future__ import annotations

import asyncio
from functools import partial

from prefect import flow

from agents.plans.seats import REPLACEMENTS
from flows.fanout import fan_out, workers
from flows.reports import table, tracked
from tasks.converse import abandon, converse_shard, settled, sole_simulator, start_simulation, unwritten
from tasks.policies import shards
from tasks.simulation import SimulateReport
from tasks.specs import SimulateSpec
from tasks.transcribe import transcribe_run


@flow(name="simulate", flow_run_name="simulate-{spec.name}")
async def simulate(spec: SimulateSpec) -> SimulateReport:
    """Write the conversations of a plan, replace what was dropped, and export them with their views."""
    async with sole_simulator(spec):
        total = start_simulation(spec).total
        async with workers(), tracked(f"{spec.name} conversations", total) as progress:
            progress.reach(settled(spec, total))
            for replaced in range(REPLACEMENTS + 1):
                await write_round(spec, unwritten(spec, total, replaced))
        report = await asyncio.to_thread(transcribe_run, spec)
    await table(
        f"simulation-{spec.name}",
        [cell.model_dump(mode="json") for cell in report.cells],
        f"Plan {spec.plan}: {report.delivered} of {report.requested} conversations delivered; "
        f"files in {report.conversations.parent}",
    )
    return report


async def write_round(spec: SimulateSpec, positions: list[int]) -> None:
    """Settle the positions, a few shards at a time; what no model answered is recorded as failed."""
    await fan_out(
        converse_shard.with_options(**spec.writers.options()),
        shards(positions),
        lambda part: {"spec": spec, "positions": part},
        give_up=partial(abandon, spec),
    )
