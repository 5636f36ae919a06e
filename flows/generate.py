"""Generate: ideas become documents become responses become examples.

Does not know how a model is asked. A run that was killed continues where it stopped.
"""

from __future__ import annotations

import asyncio
from functools import partial

from prefect import flow

from flows.fanout import fan_out, workers
from flows.reports import table, tracked
from tasks.export import GenerateReport, export_run
from tasks.generate import STAGES, eligible, give_up, stage_chain, start_run, unsettled, write_shard
from tasks.policies import shards
from tasks.specs import GenerateSpec
from tasks.storage.drafts import Stage


@flow(name="generate", flow_run_name="generate-{spec.name}")
async def generate(spec: GenerateSpec) -> GenerateReport:
    """Write the examples of a run, stage by stage, and export them."""
    start_run(spec)
    async with workers():
        for stage in STAGES:
            await write_stage(spec, stage)
    report = await asyncio.to_thread(export_run, spec)
    await table(
        f"run-{spec.name}",
        [{"what": name, "count": getattr(report, name)} for name in COUNTS],
        f"Examples of run {spec.name} for {spec.persona}; files in {report.examples.parent}",
    )
    return report


COUNTS = ("requested", "accepted", "dropped", "failed", "refused", "completion_tokens")


async def write_stage(spec: GenerateSpec, stage: Stage) -> None:
    """Settle every position of a stage; what no model answered is recorded as failed, and the run goes on."""
    positions = eligible(spec, stage)
    todo = unsettled(spec, stage, positions)
    async with tracked(f"{spec.name} {stage}s", len(positions)) as progress:
        progress.reach(len(positions) - len(todo))
        await fan_out(
            write_shard.with_options(**stage_chain(spec, stage).options()),
            shards(todo),
            lambda part: {"spec": spec, "stage": stage, "positions": part},
            give_up=partial(give_up, spec, stage),
        )
