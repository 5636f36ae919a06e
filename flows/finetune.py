"""Fine-tune: freeze the examples as a dataset and submit one job for them.

Does not know how a backend trains.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from flows.watch import watch
from tasks.curate import snapshot_dataset
from tasks.finetune import submit_job
from tasks.specs import FinetuneSpec, WatchSpec
from tasks.watch import JobReport, poll_jobs


@flow(name="finetune", flow_run_name="finetune-{spec.persona}")
async def finetune(spec: FinetuneSpec) -> JobReport:
    """Train the persona's base model on its examples; the same data and settings make the same job."""
    dataset_id = await asyncio.to_thread(snapshot_dataset, spec.persona)
    job_id = await asyncio.to_thread(submit_job, spec, dataset_id)
    if spec.wait:
        return (await watch(WatchSpec(job=job_id, follow=True)))[0]
    return poll_jobs(job_id)[0]
