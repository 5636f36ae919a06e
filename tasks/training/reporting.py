"""What a trainer tells its folder: state, losses and events, as the training goes on.

Does not know how training works.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from tasks.training.base import JobStatus, LossPoint
from tasks.training.folder import JobFolder, TrainerState
from tasks.training.pace import Pace
from tasks.training.processes import describe

_STATE_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """What of a training is behind it, interruptions left out."""

    step: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0


class Reporter:
    """Writes for one trainer process, from its start to its end."""

    def __init__(self, folder: JobFolder) -> None:
        folder.repair()
        self.folder = folder
        self._pace = Pace()
        self._started = self._written = time.monotonic()
        self._before = Progress()
        last = folder.read_state() or TrainerState(status="queued")
        self._state = last.model_copy(
            update={"status": "running", "error": None, "process": describe(os.getpid())}
        )
        folder.write_state(self._state)

    def begin(self, before: Progress, total_steps: int) -> None:
        """Take up the count where an earlier trainer left its checkpoint."""
        self._before = before
        self._write(step=before.step, trained_tokens=before.trained_tokens, total_steps=total_steps)

    def event(self, message: str) -> None:
        """Tell of something that happens once."""
        self.folder.add_event(message)

    def step(self, loss: float, seconds: float, tokens: int) -> None:
        """Count a step with its mean loss; the state is written a few times a second at most."""
        self._pace.add(seconds)
        done = self._state.step + 1
        self.folder.add_loss(LossPoint(step=done, loss=loss))
        update = {"step": done, "trained_tokens": self._state.trained_tokens + tokens}
        if time.monotonic() - self._written < _STATE_SECONDS:
            self._state = self._state.model_copy(update=update)
        else:
            self._write(**update)

    def validated(self, loss: float) -> None:
        """Keep the validation loss after the step counted last."""
        self.folder.add_loss(LossPoint(step=self._state.step, loss=loss, split="validation"))

    def end(self, status: JobStatus, error: str | None = None) -> None:
        """Write the terminal state."""
        state = self._state
        speed = (state.trained_tokens - self._before.trained_tokens) / max(1e-9, self._pace.total)
        self.event(
            f"Failed at step {state.step}: {error}"
            if error
            else f"Completed {state.total_steps} steps, {speed:.0f} tokens/s."
        )
        self._write(status=status, error=error)

    def progress(self) -> Progress:
        """Return what is behind, to be kept in a checkpoint."""
        seconds = self._before.seconds + time.monotonic() - self._started
        return Progress(self._state.step, self._state.trained_tokens, seconds)

    def _write(self, **update: object) -> None:
        self._written = time.monotonic()
        state = self._state.model_copy(update=update)
        left = self._pace.left(state.total_steps - state.step) if state.status == "running" else None
        self._state = state.model_copy(update={"seconds": self.progress().seconds, "seconds_left": left})
        self.folder.write_state(self._state)
