"""The seam of training: a job, its state, and the protocol that every backend fulfils.

Does not know any backend, nor where jobs are recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from agents.schemas import Frozen

JobStatus = Literal["queued", "running", "completed", "error", "cancelled"]
TERMINAL: frozenset[JobStatus] = frozenset({"completed", "error", "cancelled"})


class Hyperparameters(Frozen):
    """The settings of a LoRA fine-tune; all of them are recorded with the job."""

    epochs: int = Field(default=3, ge=1, le=100)
    learning_rate: float = Field(default=1e-5, gt=0.0, le=1.0)
    warmup_ratio: float = Field(default=0.1, ge=0.0, le=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    sequence_tokens: int = Field(default=512, ge=64, description="examples are packed to this length")
    batch_sequences: int = Field(default=2, ge=1, description="packed sequences in one optimiser step")
    seed: int = 0


class TrainingJob(Frozen):
    """All that a backend needs; `id` is the hash of data, base model and hyperparameters."""

    id: str
    persona: str
    base_model: str
    train_file: Path
    validation_file: Path | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    folder: Path = Field(description="the job's own folder; the adapter ends up in folder/adapter")
    cache: Path = Field(description="where converted checkpoints lie")


class LossPoint(Frozen):
    """The mean loss (nats per target token) of one optimiser step; `split` says on which data."""

    step: int
    loss: float
    split: Literal["train", "validation"] = "train"


class JobEvent(Frozen):
    """Something that happened to a job, in the backend's words; `at` is ISO 8601 UTC."""

    at: str
    message: str


class JobState(Frozen):
    """What a backend knows of a job now."""

    status: JobStatus
    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None
    losses: tuple[LossPoint, ...] = ()
    events: tuple[JobEvent, ...] = ()
    trained_tokens: int = 0
    seconds: float = 0.0
    error: str | None = None
    interrupted: bool = Field(
        default=False, description="whoever worked on it is gone; submitting again continues it"
    )
    adapter: Path | None = None


class TrainingBackend(Protocol):
    """Whoever can run a job. Every call may be repeated: after a crash the same call finds the same job."""

    recipe: Hyperparameters
    """The settings that hold where nobody asks for others."""

    def submit(self, job: TrainingJob) -> str:
        """Start the job, or find it started, and return the backend's own id for it.

        A job that died is continued from its last checkpoint. Raises DatasetInvalid or ModelUnavailable
        before anything is started.
        """

    def poll(self, job: TrainingJob, backend_id: str) -> JobState:
        """Return the state of the job without waiting."""

    def cancel(self, job: TrainingJob, backend_id: str) -> None:
        """Stop the job; a job that has ended stays as it ended."""
