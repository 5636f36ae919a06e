"""Rate a candidate: both sides answer the held-out prompts, a judge compares, the figures are kept.

Does not know what they decide.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from prefect import task

from agents.chat import ChatAnswer, ChatModel, ChatRequest, Sampling
from agents.errors import NotFound
from agents.judge import VERSION as JUDGE_VERSION
from agents.judge import Comparison, Judge, open_judge
from agents.schemas import Frozen, Persona, fingerprint
from tasks.cast import find_persona
from tasks.evaluation.figures import Performance, report_figures
from tasks.evaluation.prompts import HeldOut, read_held_out
from tasks.evaluation.report import EvaluationReport
from tasks.models import open_recorded
from tasks.policies import MODEL_CALLS, call_slot
from tasks.progress import advance
from tasks.specs import EvaluateSpec
from tasks.storage.examples import get_dataset
from tasks.storage.jobs import get_job, jobs
from tasks.storage.leases import leased
from tasks.storage.registry import add_evaluation, baseline_of, get_evaluation
from tasks.storage.rounds import round_of_job
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Evaluation, Match
from tasks.training.base import TERMINAL

ANSWER_VERSION = "evaluate/1"
REFERENCE = "reference"


class Contest(Frozen):
    """Who is held against whom, on what, answering how; `id` is the hash of all of it.

    Answers are drawn as the service draws them, since that is what people will read.
    """

    id: str
    persona: str
    job: str
    dataset: str
    candidate: str
    baseline: str
    judge: str
    sampling: Sampling


@task(name="set-contest")
def set_contest(spec: EvaluateSpec) -> Contest:
    """Decide candidate, baseline and held-out data; raise NotFound when there is no completed job."""
    store = open_store()
    persona = find_persona(store, spec.persona)
    job = get_job(store, spec.job or newest_completed(store, persona.name))
    if job.status != "completed":
        raise NotFound(
            f"The job {job.id} is {job.status}, not completed.", "`understudy watch` moves it forward."
        )
    row = round_of_job(store, job.id)
    judge = spec.judge or (row.judge if row else None) or REFERENCE
    _open_judge(store, judge, persona)
    baseline = baseline_of(store, job)
    rules = json.dumps([rule.model_dump() for rule in persona.validation])
    sampling = serving_sampling(persona)
    content = (job.id, job.dataset_id, baseline, judge, sampling.model_dump_json(), rules)
    return Contest(
        id=fingerprint(*content, ANSWER_VERSION, JUDGE_VERSION),
        persona=persona.name,
        job=job.id,
        dataset=job.dataset_id,
        candidate=f"{job.base_model}@{job.id}",
        baseline=baseline,
        judge=judge,
        sampling=sampling,
    )


def serving_sampling(persona: Persona) -> Sampling:
    """Return how the service draws the persona's answers, and so how they are drawn to be rated."""
    return Sampling(temperature=persona.sampling.temperature, max_tokens=persona.sampling.serving_max_tokens)


def newest_completed(store: Store, persona: str) -> str:
    """Return the id of the persona's newest completed job; raise NotFound naming what it has instead."""
    found = jobs(store, persona=persona)
    for job in found:
        if job.status == "completed":
            return job.id
    states = ", ".join(f"{job.id} is {job.status}" for job in found) or "none was submitted"
    waiting = any(job.status not in TERMINAL for job in found)
    raise NotFound(
        f"{persona} has no completed job ({states}).",
        "`understudy watch` moves it forward." if waiting else f"`understudy finetune {persona}` trains one.",
    )


def finished_report(contest: Contest) -> EvaluationReport | None:
    """Return the report of a contest that was finished before, or None."""
    row = get_evaluation(open_store(), contest.id)
    return None if row is None else EvaluationReport.model_validate_json(row.report)


def sole_rater(contest: Contest) -> AbstractAsyncContextManager[None]:
    """Wait until no other process rates the contest, so that no answer is paid for twice."""
    return leased(open_store(), f"evaluate {contest.id}")


def contest_prompts(contest: Contest) -> list[HeldOut]:
    """Return the held-out conversations that the contest is about."""
    store = open_store()
    return read_held_out(store.object_path(get_dataset(store, contest.dataset).held_out_file))


@task(name="answer-shard", task_run_name="answer[{address}]", **MODEL_CALLS)
async def answer_shard(address: str, prompts: Sequence[HeldOut], sampling: Sampling) -> list[ChatAnswer]:
    """Answer each prompt with the model of the address; a prompt has the same seed for every model."""
    model = open_recorded(open_store(), address, stage=ANSWER_VERSION, slot=call_slot)

    async def answer(prompt: HeldOut) -> ChatAnswer:
        seeded = sampling.model_copy(update={"seed": int(fingerprint(prompt.origin)[:7], 16)})
        found = await model.complete(ChatRequest(messages=prompt.prompt, sampling=seeded))
        advance()
        return found

    return list(await asyncio.gather(*(answer(prompt) for prompt in prompts)))


@task(name="score-shard", task_run_name="score[{address}]", **MODEL_CALLS)
async def score_shard(address: str, prompts: Sequence[HeldOut]) -> list[tuple[float, ...]]:
    """Return the log-probabilities that the model gives the person's real answers."""
    model = open_recorded(open_store(), address, stage=ANSWER_VERSION, slot=call_slot)

    async def score(prompt: HeldOut) -> tuple[float, ...]:
        found = await model.score(prompt.messages)
        advance()
        return found.log_probabilities

    return list(await asyncio.gather(*(score(prompt) for prompt in prompts)))


@task(name="judge-contest", task_run_name="judge[{contest.persona}]", **MODEL_CALLS)
async def judge_contest(
    contest: Contest, spec: EvaluateSpec, candidate: Performance, baseline: Performance
) -> EvaluationReport:
    """Compare the answers, add up the figures, and keep evaluation and matches."""
    store, prompts = open_store(), contest_prompts(contest)
    persona = find_persona(store, spec.persona)
    judge = _open_judge(store, contest.judge, persona)
    verdicts = await judge.compare(
        [
            Comparison(
                question=prompt.question, reference=prompt.reference, first=ours.text, second=theirs.text
            )
            for prompt, ours, theirs in zip(prompts, candidate.answers, baseline.answers, strict=True)
        ]
    )
    report = report_figures(persona, judge.name, contest.dataset, prompts, verdicts, candidate, baseline)
    found = [
        Match(
            evaluation_id=contest.id,
            position=position,
            question=prompt.question,
            reference=prompt.reference,
            candidate_answer=candidate.texts[position],
            baseline_answer=baseline.texts[position],
            score=verdicts[position].score,
            reason=verdicts[position].reason,
        )
        for position, prompt in enumerate(prompts)
    ]
    add_evaluation(
        store,
        Evaluation(
            id=contest.id,
            persona=persona.name,
            job_id=contest.job,
            spec=spec.model_copy(update={"judge": contest.judge}).model_dump_json(),
            report=report.model_dump_json(),
        ),
        found,
    )
    return report


def _open_judge(store: Store, judge: str, persona: Persona) -> Judge:
    name, colon, address = judge.partition(":")
    model: ChatModel | None = (
        open_recorded(store, address, stage=JUDGE_VERSION, slot=call_slot) if colon else None
    )
    return open_judge(name, persona, model)
