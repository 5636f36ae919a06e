"""Pairs: prompts that the persona has answered are answered by the untuned student; the two make DPO data.

Does not know how a model is asked. A run that was killed continues where it stopped.
"""

from __future__ import annotations

import asyncio
from functools import partial

from prefect import flow

from flows.fanout import each, run_shard, workers
from flows.reports import markdown, tracked
from tasks.generate import give_up
from tasks.pairs import (
    PairReport,
    export_pairs,
    pair_shard,
    sole_pairer,
    stage_chain,
    stages,
    start_pairs,
    unpaired,
)
from tasks.policies import shards
from tasks.progress import advance
from tasks.specs import PairSpec


@flow(name="pairs", flow_run_name="pairs-{spec.name}")
async def pairs(spec: PairSpec) -> PairReport:
    """Write the pairs of a run, a shard of prompts at a time through every stage, and export them."""
    async with sole_pairer(spec):
        positions = await asyncio.to_thread(start_pairs, spec)
        async with workers(), tracked(f"{spec.name} texts", len(stages(spec)) * len(positions)):
            await each(shards(positions), partial(write_pairs, spec))
        report = await asyncio.to_thread(export_pairs, spec, len(positions))
    await markdown(f"card-{spec.name}", report.card.read_text(), f"Data card of run {spec.name}")
    return report


async def write_pairs(spec: PairSpec, positions: list[int]) -> None:
    """Take a shard through the stages; what no model answered is recorded as failed, and the run goes on."""
    for stage in stages(spec):
        todo = await asyncio.to_thread(unpaired, spec, stage, positions)
        advance(len(positions) - len(todo))
        if todo:
            await run_shard(
                pair_shard.with_options(**stage_chain(spec, stage).options()),
                {"spec": spec, "stage": stage, "positions": todo},
                items=len(todo),
                give_up=partial(give_up, spec, stage),
            )
