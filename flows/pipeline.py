"""The whole loop for one persona: data, fine-tune, evaluation, gate.

Does not know how any step is done.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from agents.errors import TrainingFailed
from agents.schemas import Frozen
from flows.collect import collect
from flows.evaluate import evaluate
from flows.finetune import finetune
from flows.generate import generate
from flows.promote import promote
from flows.reports import markdown
from flows.texts import evaluation_text, promotion_text
from tasks.collect import CollectReport
from tasks.evaluation.report import EvaluationReport
from tasks.export import GenerateReport
from tasks.promote import PromotionReport
from tasks.retrain import wants_collecting
from tasks.specs import EvaluateSpec, FinetuneSpec, PipelineSpec, PromoteSpec
from tasks.watch import JobReport


class PipelineReport(Frozen):
    """What every step of the loop came to."""

    generated: GenerateReport | None
    collected: CollectReport | None
    job: JobReport
    evaluation: EvaluationReport
    promotion: PromotionReport


@flow(name="pipeline", flow_run_name="pipeline-{spec.persona}")
async def pipeline(spec: PipelineSpec) -> PipelineReport:
    """Run the loop; repeated with the same data it finds what exists and does nothing twice."""
    generated = await generate(spec.generate) if spec.generate else None
    collected = None
    if await asyncio.to_thread(wants_collecting, spec.persona):
        collected = await collect(spec.persona)
    job = await finetune(
        FinetuneSpec(
            persona=spec.persona, backend=spec.backend, hyperparameters=spec.finetune, judge=spec.judge
        )
    )
    evaluation, promotion = await decide_on(job, spec.persona, spec.judge)
    report = PipelineReport(
        generated=generated,
        collected=collected,
        job=job,
        evaluation=evaluation,
        promotion=promotion,
    )
    await markdown(f"pipeline-{job.persona}", pipeline_text(report), "The loop from data to decision")
    return report


async def decide_on(
    job: JobReport, persona: str, judge: str | None
) -> tuple[EvaluationReport, PromotionReport]:
    """Judge a job that has ended and let the gate decide; raise TrainingFailed if it did not complete."""
    if job.status != "completed":
        raise TrainingFailed(
            f"The job {job.id} ended as {job.status}: {job.error or 'no reason given'}.",
            f"Mend the cause and run the same command again; `understudy status {job.id}` shows its events.",
        )
    contest, evaluation = await evaluate(EvaluateSpec(persona=persona, job=job.id, judge=judge))
    return evaluation, await promote(PromoteSpec(persona=persona, evaluation=contest.id))


def pipeline_text(report: PipelineReport) -> str:
    """Return the whole loop as Markdown: job, evaluation, decision."""
    job = report.job
    rate = job.trained_tokens / job.seconds if job.seconds else 0.0
    trained = (
        f"Job {job.id}: {job.status} after {job.step} steps, {job.trained_tokens} tokens "
        f"in {job.seconds:.0f} s ({rate:.0f} tokens/s)."
    )
    return "\n\n".join([trained, evaluation_text(report.evaluation), promotion_text(report.promotion)])
