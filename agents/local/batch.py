"""The running batch: which tokens go into the next pass, and who gets what comes out.

Does not know threads or callers. Every step gives each answer in progress its next token and reads as
much of the waiting prompts as a budget of tokens allows, so that answers do not stall behind prompts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.errors import ModelError, UnderstudyError
from agents.local.forward import Span, bucket, run_pass
from agents.local.kv import GRAIN, Chunk, PromptMemory, Shape, Tables
from agents.local.prefixes import Prefixes
from agents.local.routing import Router
from agents.local.sampling import draw_tokens
from agents.local.work import Generation, Scoring, Work

MAX_ANSWERS = 32
MAX_TOKENS = 131_072
READ_TOKENS = 512
READ_TOKENS_BESIDE_ANSWERS = 192


@dataclass(frozen=True)
class _Part:
    """The part of a prompt that one step reads, and where its wanted logits lie."""

    work: Work
    chunk: Chunk
    wanted: Sequence[int]

    @property
    def ends(self) -> bool:
        return self.chunk.start + self.chunk.count == len(self.work.ids)


class Batch:
    """Requests that wait, are read or are being answered; they join and leave at any step."""

    def __init__(self, model: Any, router: Router, shape: Shape) -> None:
        self._model = model
        self._router = router
        self._shape = shape
        self._generations: deque[Generation] = deque()
        self._scorings: deque[Scoring] = deque()
        self._reading: list[Work] = []
        self._answers: Tables[Generation] = Tables(shape)
        self._prefixes = Prefixes()

    @property
    def busy(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self._reading or self._generations or self._scorings or len(self._answers))

    def add(self, work: Work) -> None:
        """Take in a request; it is read when there is room."""
        if isinstance(work, Generation):
            self._generations.append(work)
        else:
            self._scorings.append(work)

    def step(self) -> None:
        """Run one pass and hand out its results."""
        self._drop_gone()
        parts = self._next_parts()
        steps = self._answers.steps()
        answers = self._answers.items
        if not (parts or answers):
            return
        logits = self._run(parts, steps, answers)
        self._continue(answers, logits[: len(answers)])
        self._finish_parts(parts, logits[len(answers) :])

    def fail(self, error: UnderstudyError) -> None:
        """Tell everyone in the batch, and start over empty."""
        everyone = [*self._answers.items, *self._reading, *self._generations, *self._scorings]
        self._generations.clear()
        self._scorings.clear()
        self._reading = []
        self._answers = Tables(self._shape)
        self._prefixes.clear()
        for work in everyone:
            work.listener.hear(error)

    def _drop_gone(self) -> None:
        self._answers.discard({work for work in self._answers.items if work.listener.gone})
        self._reading = [work for work in self._reading if not work.listener.gone]
        for queue in (self._generations, self._scorings):
            if any(work.listener.gone for work in queue):
                present = [work for work in queue if not work.listener.gone]
                queue.clear()
                queue.extend(present)  # type: ignore[arg-type]

    def _next_parts(self) -> list[_Part]:
        """Choose what to read: prompts in order; a long one leaves half of the budget to the others."""
        left = READ_TOKENS_BESIDE_ANSWERS if len(self._answers) else READ_TOKENS
        parts: list[_Part] = []
        while left >= GRAIN and (len(parts) < len(self._reading) or self._admit()):
            work = self._reading[len(parts)]
            memory = self._memory(work)
            others = len(self._reading) > 1 or self._generations or self._scorings
            share = left // 2 if others and not parts else left
            rest = len(work.ids) - memory.length
            count = rest if rest <= share else max(GRAIN, share // GRAIN * GRAIN)
            parts.append(_Part(work, Chunk(memory, count), work.wanted(memory.length, memory.length + count)))
            left -= count
        return parts

    def _admit(self) -> bool:
        """Begin the next request that has room; answers go first, since somebody may be watching."""
        answers = self._answers.items
        taken = len(answers) + sum(isinstance(work, Generation) for work in self._reading)
        queue: deque[Any] = self._generations if taken < MAX_ANSWERS else deque()
        queue = queue or self._scorings
        if not queue:
            return False
        running = [work.reserved for work in (*answers, *self._reading)]
        if running and sum(running) + queue[0].reserved > MAX_TOKENS:
            return False
        self._reading.append(queue.popleft())
        return True

    def _memory(self, work: Work) -> PromptMemory:
        if work.memory is None:
            work.memory = PromptMemory(self._shape, len(work.ids))
            self._prefixes.start(work.ids, work.adapter, work.reusable, work.memory)
        return work.memory

    def _run(self, parts: Sequence[_Part], steps: Sequence[Span], answers: Sequence[Generation]) -> Tensor:
        ids = [work.last for work in answers]
        positions = [work.position for work in answers]
        wanted = list(range(len(answers)))
        owners = [(work.adapter, 1) for work in answers]
        for part in parts:
            start, count = part.chunk.start, part.chunk.count
            wanted += [len(ids) + position - start for position in part.wanted]
            ids += part.work.ids[start : start + count]
            positions += range(start, start + count)
            owners.append((part.work.adapter, count))
        self._router.route(owners, bucket(len(ids)))
        spans = [*steps, *(part.chunk for part in parts)]
        return run_pass(self._model, ids=ids, positions=positions, spans=spans, wanted=wanted)

    def _finish_parts(self, parts: Sequence[_Part], logits: Tensor) -> None:
        begun: list[Generation] = []
        firsts: list[Tensor] = []
        at = 0
        for part in parts:
            rows = logits[at : at + len(part.wanted)]
            at += len(part.wanted)
            if isinstance(part.work, Scoring):
                part.work.take(part.wanted, rows)
            if part.ends:
                self._reading.remove(part.work)
                self._prefixes.remember(part.work.ids, part.work.adapter, part.chunk.memory)
            if part.ends and isinstance(part.work, Scoring):
                part.work.finish()
            elif part.ends and isinstance(part.work, Generation):
                self._answers.add(part.work, part.chunk.memory)
                begun.append(part.work)
                firsts.append(rows)
        if begun:
            self._continue(begun, torch.cat(firsts))

    def _continue(self, answers: Sequence[Generation], logits: Tensor) -> None:
        """Draw the next token of each answer; let those go that are complete or broken."""
        if not answers:
            return
        sound = logits.amax(-1).isfinite().tolist()
        whole = [row for row, good in enumerate(sound) if good]
        ended = {work for work, good in zip(answers, sound, strict=True) if not good}
        for work in ended:
            work.listener.hear(_broken(work))
        if ended:
            logits = logits[whole]
            answers = [answers[row] for row in whole]
        if answers:
            tokens = draw_tokens(logits.float(), [work.sampler for work in answers])
            ended |= {work for work, token in zip(answers, tokens, strict=True) if not work.take(token)}
        self._answers.discard(ended)


def _broken(work: Generation) -> ModelError:
    whose = f"adapter {work.adapter.name}" if work.adapter else "base model"
    return ModelError(
        f"The {whose} computed values that are not finite after {work.position + 1} tokens.",
        "Its weights are broken or its learning rate was too high: train or fetch it again.",
    )
