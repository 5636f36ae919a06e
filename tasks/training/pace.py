"""The arithmetic of a training's course: learning rate by step, time left, when to keep a checkpoint.

Does not know what is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tasks.training.base import Hyperparameters

_CHECKPOINT_SHARE = 0.02


def learning_rate(step: int, total: int, settings: Hyperparameters) -> float:
    """Return the rate of a step (from 0): a linear rise over `warmup_ratio`, then half a cosine down."""
    warm = math.ceil(settings.warmup_ratio * total)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


@dataclass
class Pace:
    """The seconds of the steps so far; the first builds kernels and is not typical of the others."""

    seconds: list[float] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Return the seconds of all steps."""
        return sum(self.seconds)

    def add(self, seconds: float) -> None:
        """Count a step."""
        self.seconds.append(seconds)

    def left(self, steps: int) -> float | None:
        """Return the seconds that so many further steps will take, or None before the first."""
        typical = self.seconds[1:] or self.seconds
        return steps * sum(typical) / len(typical) if typical else None


@dataclass
class CheckpointClock:
    """Lets checkpoints take two percent of the time, however long one takes; times in seconds."""

    last: float
    cost: float = 0.0

    def is_due(self, now: float) -> bool:
        """Tell whether enough time has gone since the last checkpoint."""
        return (now - self.last) * _CHECKPOINT_SHARE >= self.cost

    def kept(self, began: float, now: float) -> None:
        """Note a checkpoint that was just written."""
        self.last, self.cost = now, now - began
