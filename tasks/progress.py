"""How far a fan-out has come: done, total, rate, time left.

Does not know who looks: a flow opens a `Progress` for what it is about to fan out, tasks advance it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic

current: ContextVar[Progress | None] = ContextVar("progress", default=None)


@dataclass
class Progress:
    """A count towards a total; `changes` grows with every advance, so that a watcher sees something new."""

    label: str
    total: int
    done: int = 0
    changes: int = 0
    started: float = field(default_factory=monotonic)
    note: str = ""
    seconds_left: float | None = None

    @property
    def fraction(self) -> float:
        """Return the share that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def rate(self) -> float:
        """Return items per second since the start."""
        elapsed = monotonic() - self.started
        return self.done / elapsed if elapsed > 0 else 0.0

    def reach(self, done: int, *, total: int | None = None, seconds_left: float | None = None) -> None:
        """Set the count, and the time left where somebody knows it better than the rate does."""
        self.done, self.seconds_left = done, seconds_left
        self.total = self.total if total is None else total
        self.changes += 1

    def line(self) -> str:
        """Return the state as one readable line."""
        left = self.seconds_left
        if left is None and self.rate > 0:
            left = (self.total - self.done) / self.rate
        parts = [f"{self.label} {self.done}/{self.total}"]
        if 0 < self.done < self.total:
            parts += [f"{self.rate:.2f}/s", f"{left:.0f} s left" if left is not None else ""]
        parts.append(self.note)
        return " · ".join(part for part in parts if part)


def advance(count: int = 1, *, note: str = "") -> None:
    """Count items of the fan-out at hand as done; outside of one this does nothing."""
    progress = current.get()
    if progress is not None:
        progress.note = note or progress.note
        progress.reach(progress.done + count)
