"""The figures of an evaluation, from what both sides did and what the judge said of it.

Does not know how answers are had or reports kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from agents.chat import ChatAnswer
from agents.judge import Verdict
from agents.rules import RuleContext, check_answer, open_rules
from agents.schemas import Frozen, Persona
from agents.similarity import closeness
from tasks.evaluation.intervals import mean_interval, score_interval
from tasks.evaluation.prompts import HeldOut
from tasks.evaluation.report import EvaluationReport, Side


class Performance(Frozen):
    """What one side did on the prompts, in their order."""

    model: str
    answers: tuple[ChatAnswer, ...]
    log_probabilities: tuple[tuple[float, ...], ...]

    @property
    def texts(self) -> list[str]:
        """Return the answers' texts in order."""
        return [answer.text for answer in self.answers]


def report_figures(
    persona: Persona,
    judge: str,
    dataset: str,
    prompts: Sequence[HeldOut],
    verdicts: Sequence[Verdict],
    candidate: Performance,
    baseline: Performance,
) -> EvaluationReport:
    """Add up what both sides did; verdicts that are not valid are counted and left out of the score."""
    valid = [verdict.score for verdict in verdicts if verdict.valid]
    references = [prompt.reference for prompt in prompts]
    ours, theirs = (_closeness(side, references) for side in (candidate, baseline))
    return EvaluationReport(
        persona=persona.name,
        judge=judge,
        dataset=dataset,
        prompts=len(prompts),
        wins=sum(score > 0.5 for score in valid),
        losses=sum(score < 0.5 for score in valid),
        ties=sum(score == 0.5 for score in valid),
        invalid=len(verdicts) - len(valid),
        flips=sum(verdict.flipped for verdict in verdicts),
        score=score_interval(valid) if valid else None,
        scores=tuple(valid),
        similarity_gain=mean_interval([a - b for a, b in zip(ours, theirs, strict=True)]),
        similarity_floor=fmean(closeness(references[1:] + references[:1], references)),
        candidate=_side(persona, prompts, candidate, fmean(ours)),
        baseline=_side(persona, prompts, baseline, fmean(theirs)),
        violations=dict(Counter(name for names in _broken(persona, prompts, candidate) for name in names)),
    )


def _closeness(side: Performance, references: Sequence[str]) -> list[float]:
    return closeness(side.texts, references)


def _side(persona: Persona, prompts: Sequence[HeldOut], side: Performance, similarity: float) -> Side:
    tokens = [value for values in side.log_probabilities for value in values]
    lengths = sum(len(answer.text) for answer in side.answers)
    return Side(
        model=side.model,
        validation_pass_rate=fmean(not names for names in _broken(persona, prompts, side)),
        perplexity=math.exp(-fmean(tokens)),
        similarity=similarity,
        length_ratio=lengths / sum(len(prompt.reference) for prompt in prompts),
        unfinished=fmean(answer.finish_reason == "length" for answer in side.answers),
        seconds=fmean(answer.seconds for answer in side.answers),
    )


def _broken(persona: Persona, prompts: Sequence[HeldOut], side: Performance) -> list[list[str]]:
    rules = open_rules(persona.validation)
    return [
        [
            violation.rule
            for violation in check_answer(
                rules,
                text,
                RuleContext(system_prompt=persona.system_prompt, question=prompt.question),
            )
        ]
        for prompt, text in zip(prompts, side.texts, strict=True)
    ]
