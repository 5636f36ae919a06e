"""Fine-tune: freeze the examples of a round as a dataset and submit one job for them.

Does not know how a backend trains.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from agents.errors import PERMANENT
from flows.reports import markdown
from flows.watch import watch
from tasks.card import write_dataset_card
from tasks.curate import snapshot_dataset
from tasks.finetune import submit_job
from tasks.rounds import RoundReport, fail_round, latest_round
from tasks.specs import FinetuneSpec, WatchSpec
from tasks.watch import JobReport, poll_jobs


@flow(name="finetune", flow_run_name="finetune-{spec.persona}")
async def finetune(spec: FinetuneSpec) -> JobReport:
    """Train the persona's base model on its examples; the same data and settings make the same job."""
    job_id = await submit(spec, await asyncio.to_thread(latest_round, spec.persona, spec.judge))
    if spec.wait:
        return (await watch(WatchSpec(job=job_id, follow=True)))[0]
    return poll_jobs(job_id)[0]


async def submit(spec: FinetuneSpec, taken_up: RoundReport) -> str:
    """Submit the job of a round and return its id; what cannot be trained closes it with the reason."""
    try:
        dataset_id = await asyncio.to_thread(snapshot_dataset, spec.persona, taken_up.number or 0)
        card = await asyncio.to_thread(write_dataset_card, dataset_id)
        await markdown(f"card-{dataset_id}", card.read_text(), f"Data card of dataset {dataset_id}")
        return await asyncio.to_thread(submit_job, spec, dataset_id, taken_up)
    except PERMANENT as error:
        if taken_up.number is not None:
            fail_round(taken_up.persona, taken_up.number, str(error))
        raise
