"""Generate: ideas become documents become responses become examples.

Does not know how a model is asked. A run that was killed continues where it stopped.
"""

from __future__ import annotations

import asyncio
from functools import partial

from prefect import flow

from agents.errors import BudgetReached
from flows.fanout import each, run_shard, workers
from flows.reports import markdown, table, tracked
from tasks.export import GenerateReport, export_run
from tasks.generate import STAGES, give_up, sole_writer, stage_chain, start_run, unsettled, write_shard
from tasks.policies import shards
from tasks.progress import advance
from tasks.specs import GenerateSpec


@flow(name="generate", flow_run_name="generate-{spec.name}")
async def generate(spec: GenerateSpec) -> GenerateReport:
    """Write the examples of a run, a shard of them at a time through every stage, and export them."""
    async with sole_writer(spec):
        start_run(spec)
        async with workers(), tracked(f"{spec.name} texts", len(STAGES) * spec.count):
            stops: list[str] = []
            await each(shards(range(spec.count)), partial(write_examples, spec, stops))
        report = await asyncio.to_thread(export_run, spec)
        report = report.model_copy(update={"stopped": " ".join(stops[:1])})
    await table(
        f"run-{spec.name}",
        [{"what": name, "count": getattr(report, name)} for name in COUNTS],
        f"Examples of run {spec.name} for {spec.persona}; files in {report.examples.parent}",
    )
    await markdown(f"card-{spec.name}", report.card.read_text(), f"Data card of run {spec.name}")
    return report


COUNTS = ("requested", "accepted", "dropped", "failed", "refused", "completion_tokens")


async def write_examples(spec: GenerateSpec, stops: list[str], positions: list[int]) -> None:
    """Take a shard through the stages; what no model answered is recorded as failed, and the run goes on.

    Where the budget is reached the reason joins `stops`, and no shard begins another stage.
    """
    for stage in STAGES:
        if stops:
            return
        todo = await asyncio.to_thread(unsettled, spec, stage, positions)
        advance(len(positions) - len(todo))
        if todo:
            try:
                await run_shard(
                    write_shard.with_options(**stage_chain(spec, stage).options()),
                    {"spec": spec, "stage": stage, "positions": todo},
                    items=len(todo),
                    give_up=partial(give_up, spec, stage),
                )
            except BudgetReached as reached:
                stops.append(str(reached))
