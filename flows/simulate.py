"""Simulate: a plan becomes workplace conversations, and those become examples of everybody who took part.

Does not know how a conversation is written. A run that was killed continues where it stopped.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from agents.plans.seats import REPLACEMENTS
from flows.reports import table, tracked
from tasks.converse import abandon, converse_shard, settled, start_simulation, unwritten
from tasks.policies import CONCURRENT_CALLS, SHARD, PartialFailure, shards
from tasks.simulation import SimulateReport
from tasks.specs import SimulateSpec
from tasks.transcribe import transcribe_run

# A conversation makes one call at a time: so many shards keep every slot busy and finish one by one.
SHARDS_AT_ONCE = max(1, 2 * CONCURRENT_CALLS // SHARD)


@flow(name="simulate", flow_run_name="simulate-{spec.name}")
async def simulate(spec: SimulateSpec) -> SimulateReport:
    """Write the conversations of a plan, replace what was dropped, and export them with their views."""
    total = start_simulation(spec).total
    async with tracked(f"{spec.name} conversations", total) as progress:
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
    room = asyncio.Semaphore(SHARDS_AT_ONCE)
    converse = converse_shard.with_options(**spec.writers.options())

    async def write(part: list[int]) -> None:
        async with room:
            try:
                await converse(spec, part)
            except PartialFailure as failure:
                abandon(spec, failure)

    await asyncio.gather(*(write(list(part)) for part in shards(positions)))
