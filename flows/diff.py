"""Diff: what changed between two versions, and the same held-out questions answered by both.

Does not know how anything is compared. What an evaluation answered before is replayed from the ledger.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from flows.differences import diff_text
from flows.reports import markdown, tracked
from tasks.comparison.report import Question, VersionDiff
from tasks.diff import Asked, compare_versions
from tasks.policies import shards
from tasks.rate import answer_shard
from tasks.specs import DiffSpec


@flow(name="diff", flow_run_name="diff-{spec.version}")
async def diff(spec: DiffSpec) -> VersionDiff:
    """Compare a version with another one, or with its parent, or with its base model if it is the first."""
    report, *asked = await asyncio.to_thread(compare_versions, spec)
    if spec.questions:
        async with tracked(f"{report.persona} questions", sum(len(side.prompts) for side in asked)):
            before, after = await asyncio.gather(*map(answer, asked))
        report = report.model_copy(update={"questions": questions(asked[1], before, after)})
    key = f"diff-{report.before.name}-{report.after.name}"
    await markdown(key, diff_text(report), "What changed between two versions")
    return report


async def answer(side: Asked) -> list[str]:
    """Have one side answer its questions, in their order."""
    parts = shards(side.prompts)
    found = await asyncio.gather(*(answer_shard(side.address, part, side.sampling) for part in parts))
    return [given.text for part in found for given in part]


def questions(asked: Asked, before: list[str], after: list[str]) -> tuple[Question, ...]:
    """Return each question with the real person's answer and both sides' own."""
    return tuple(
        Question(
            category=prompt.category,
            question=prompt.question,
            reference=prompt.reference,
            before=ours,
            after=theirs,
        )
        for prompt, ours, theirs in zip(asked.prompts, before, after, strict=True)
    )
