"""Retrain: begin a round of training where something changed, and say so plainly where nothing did.

Does not know when it is called: by a person, by an automation when enough is new, by a schedule.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.runtime import flow_run

from agents.errors import TrainingFailed, UnderstudyError
from agents.schemas import Frozen
from flows.collect import collect
from flows.finetune import submit
from flows.pipeline import decide_on
from flows.reports import table
from flows.watch import watch
from tasks.promote import PromotionReport
from tasks.retrain import personas_to_retrain, wants_collecting
from tasks.rounds import RoundReport, take_up_round
from tasks.specs import FinetuneSpec, RetrainSpec, WatchSpec


class RetrainReport(Frozen):
    """What came of one persona: a job, and a decision if it was followed, or why there is nothing to do."""

    persona: str
    round: RoundReport
    job: str | None = None
    promotion: PromotionReport | None = None
    error: str | None = None

    @property
    def sentence(self) -> str:
        """Return it as one sentence."""
        if self.error:
            return f"{self.persona} could not be retrained: {self.error}"
        if self.round.number is None:
            return self.round.refusal or "Nothing to train."
        text = (
            f"Round {self.round.number} ({self.round.reason}, {self.round.new_examples} new): job {self.job}"
        )
        return f"{text}, {self.promotion.version} {self.promotion.state}." if self.promotion else f"{text}."


def _run_name() -> str:
    spec = RetrainSpec.model_validate(flow_run.parameters["spec"])
    return f"retrain-{spec.persona or 'all'}-{spec.reason}"


@flow(name="retrain", flow_run_name=_run_name)
async def retrain(spec: RetrainSpec) -> list[RetrainReport]:
    """Begin what is due for the persona, or for every persona that the schedule means."""
    if spec.persona:
        reports = [await retrain_one(spec, spec.persona)]
    else:
        names = await asyncio.to_thread(personas_to_retrain, spec.reason)
        reports = [await _whatever_happens(spec, name) for name in names]
    await table(
        "retrain",
        [{"persona": report.persona, "what": report.sentence} for report in reports],
        f"Rounds of training, asked for by: {spec.reason}",
    )
    failures = [report.sentence for report in reports if report.error]
    if failures:
        raise TrainingFailed(" ".join(failures), "The other personas were seen to.")
    return reports


async def _whatever_happens(spec: RetrainSpec, persona: str) -> RetrainReport:
    """Retrain one of several personas; what stops it does not stop the others."""
    try:
        return await retrain_one(spec, persona)
    except UnderstudyError as error:
        return RetrainReport(persona=persona, round=RoundReport(persona=persona), error=str(error))


async def retrain_one(spec: RetrainSpec, persona: str) -> RetrainReport:
    """Begin a persona's round if one is due; with `follow` go on to its decision."""
    if spec.reason != "threshold" and await asyncio.to_thread(wants_collecting, persona):
        await collect(persona)
    taken_up = await asyncio.to_thread(take_up_round, persona, spec.reason, spec.judge)
    if taken_up.number is None:
        return RetrainReport(persona=taken_up.persona, round=taken_up)
    job = await submit(FinetuneSpec(persona=persona, backend=spec.backend), taken_up)
    report = RetrainReport(persona=taken_up.persona, round=taken_up, job=job)
    return await _follow(spec, persona, report) if spec.follow else report


async def _follow(spec: RetrainSpec, persona: str, report: RetrainReport) -> RetrainReport:
    ended = (await watch(WatchSpec(job=report.job, follow=True)))[0]
    _, promotion = await decide_on(ended, persona, spec.judge)
    return report.model_copy(update={"promotion": promotion})
