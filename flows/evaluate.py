"""Evaluate: candidate and baseline answer the held-out prompts, and a judge compares.

Does not know how figures are computed, nor what they decide.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from agents.chat import ChatAnswer, Sampling
from flows.fanout import fan_out, workers
from flows.reports import markdown, tracked
from flows.texts import evaluation_text
from tasks.evaluation.figures import Performance
from tasks.evaluation.prompts import HeldOut
from tasks.evaluation.report import EvaluationReport
from tasks.policies import shards
from tasks.rate import (
    Contest,
    answer_shard,
    contest_prompts,
    finished_report,
    judge_contest,
    score_shard,
    set_contest,
    sole_rater,
)
from tasks.rounds import tell_judged
from tasks.specs import EvaluateSpec


@flow(name="evaluate", flow_run_name="evaluate-{spec.persona}")
async def evaluate(spec: EvaluateSpec) -> tuple[Contest, EvaluationReport]:
    """Hold the candidate against the baseline; a finished evaluation is returned, not repeated."""
    contest = set_contest(spec)
    async with sole_rater(contest):
        report = finished_report(contest)
        if report is None:
            report = await rate(contest, spec)
    tell_judged(contest.id)
    await markdown(f"evaluation-{contest.persona}", evaluation_text(report), "Candidate against baseline")
    return contest, report


async def rate(contest: Contest, spec: EvaluateSpec) -> EvaluationReport:
    """Have both sides answer every prompt, and a judge compare."""
    prompts = contest_prompts(contest)
    async with workers(), tracked(f"{contest.persona} held-out answers", 4 * len(prompts)):
        candidate = await perform(contest.candidate, prompts, contest.sampling)
        baseline = await perform(contest.baseline, prompts, contest.sampling)
    return await judge_contest(contest, spec, candidate, baseline)


async def perform(address: str, prompts: list[HeldOut], sampling: Sampling) -> Performance:
    """Have one model answer every prompt and score every real answer."""
    parts = list(shards(prompts))
    answers, scores = await asyncio.gather(
        fan_out(
            answer_shard,
            parts,
            lambda part: {"address": address, "prompts": part, "sampling": sampling},
        ),
        fan_out(score_shard, parts, lambda part: {"address": address, "prompts": part}),
    )
    flat: list[ChatAnswer] = [answer for part in answers for answer in part]
    return Performance(
        model=address,
        answers=tuple(flat),
        log_probabilities=tuple(values for part in scores for values in part),
    )
