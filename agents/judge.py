"""Judges: which of two answers is better, and why.

Does not know which model gave which answer, nor what a verdict decides.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Literal, Protocol

from agents.chat import ChatModel, ChatRequest, Sampling
from agents.errors import InputError
from agents.plugins import load_plugin
from agents.prompts import render
from agents.schemas import Frozen, Persona, chat

VERSION = "judge/1"
Choice = Literal["first", "second", "tie"]


class Comparison(Frozen):
    """Two unnamed answers to one question, and the person's own answer where there is one."""

    question: str
    first: str
    second: str
    reference: str | None = None


class Verdict(Frozen):
    """The score of the first answer: the mean over both orders of 1, 0.5 or 0.

    `valid` is False when the judge did not give a verdict that can be read; the score then means nothing.
    `flipped` says that the judge chose by position.
    """

    score: float
    reason: str
    valid: bool = True
    flipped: bool = False


class Judge(Protocol):
    """Whoever compares two answers."""

    @property
    def name(self) -> str:
        """Return the name that reports show."""

    async def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return a verdict for each comparison in order."""


def open_judge(name: str, persona: Persona, model: ChatModel | None = None) -> Judge:
    """Return a judge by plugin name; the `model` judge needs a model to ask.

    Raises NotFound for an unknown judge, InputError for a model judge without a model.
    """
    judge: Judge = load_plugin("judges", name)(persona, model)
    return judge


class ReferenceJudge:
    """Prefers the answer that is closer in meaning to what the person really answered.

    Closeness is the cosine of all-MiniLM-L6-v2 embeddings; a difference below `margin` is a tie. It
    measures the topic and not the person (Understudy shows perplexity and length beside it for that).
    """

    name = "reference"
    margin = 0.01

    def __init__(self, _persona: Persona, _model: ChatModel | None = None) -> None:
        pass

    async def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return a verdict for each comparison; one without a reference is not valid."""
        from agents.similarity import closeness

        references = [comparison.reference or "" for comparison in comparisons]
        first = closeness([comparison.first for comparison in comparisons], references)
        second = closeness([comparison.second for comparison in comparisons], references)
        return [
            self._verdict(a, b) if comparison.reference else Verdict(score=0.5, reason="", valid=False)
            for comparison, a, b in zip(comparisons, first, second, strict=True)
        ]

    def _verdict(self, first: float, second: float) -> Verdict:
        score = 0.5 if abs(first - second) < self.margin else float(first > second)
        return Verdict(score=score, reason=f"closeness to the real answer {first:.3f} against {second:.3f}")


class ModelJudge:
    """Asks a model, in both orders; a verdict that flips with the order counts as a tie."""

    def __init__(self, persona: Persona, model: ChatModel | None = None) -> None:
        if model is None:
            raise InputError("The judge 'model' has no model to ask.", "Write `model:` and a model address.")
        self.persona, self.model = persona, model

    @property
    def name(self) -> str:
        """Return the judge with the model that it asks."""
        return f"model:{self.model.address}"

    async def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return a verdict for each comparison, two calls each."""
        return list(await asyncio.gather(*(self._both_orders(comparison) for comparison in comparisons)))

    async def _both_orders(self, comparison: Comparison) -> Verdict:
        swapped = comparison.model_copy(update={"first": comparison.second, "second": comparison.first})
        there, reason = await self._ask(comparison)
        back, _ = await self._ask(swapped)
        if there is None or back is None:
            return Verdict(score=0.5, reason=reason, valid=False)
        points = {"first": 1.0, "tie": 0.5, "second": 0.0}
        score = (points[there] + 1.0 - points[back]) / 2
        return Verdict(score=score, reason=reason, flipped=there == back != "tie")

    async def _ask(self, comparison: Comparison) -> tuple[Choice | None, str]:
        prompt = render(
            "judge",
            display_name=self.persona.display_name,
            description=self.persona.description,
            traits=self.persona.traits,
            question=comparison.question,
            reference=comparison.reference,
            first=comparison.first,
            second=comparison.second,
        )
        request = ChatRequest(
            messages=chat(("user", prompt)), sampling=Sampling(temperature=0.0, max_tokens=200)
        )
        text = (await self.model.complete(request)).text
        return read_verdict(text), text.strip()


def read_verdict(text: str) -> Choice | None:
    """Return the last verdict in a judge's answer, or None when there is none."""
    found = re.findall(r"verdict\W{0,5}(a|b|tie)\b", text, flags=re.IGNORECASE)
    choices: dict[str, Choice] = {"a": "first", "b": "second", "tie": "tie"}
    return choices[found[-1].lower()] if found else None
