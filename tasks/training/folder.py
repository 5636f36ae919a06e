"""The files in a job's folder: the job, its state, losses, events, log and locks.

Does not know who trains: the trainer process writes here, `poll` reads, and either may die at any time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from pydantic import BaseModel

from agents.errors import StorageError
from agents.schemas import Frozen
from tasks.storage.objects import write_text
from tasks.training.base import JobEvent, JobStatus, LossPoint, TrainingJob

Record = TypeVar("Record", bound=BaseModel)


class TrainerProcess(Frozen):
    """A process for good: a pid is used again, but not with the same start (seconds since the epoch)."""

    pid: int
    created: float


class TrainerState(Frozen):
    """How far the trainer is; `process` is the one that wrote it, None before any started."""

    status: JobStatus
    step: int = 0
    total_steps: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    trained_tokens: int = 0
    error: str | None = None
    interrupted: bool = False
    process: TrainerProcess | None = None


@dataclass(frozen=True)
class JobFolder:
    """A job's folder. JSON files are replaced whole; JSONL files only grow."""

    path: Path

    @property
    def adapter(self) -> Path:
        """Return where the adapter is once the job has completed."""
        return self.path / "adapter"

    @property
    def log(self) -> Path:
        """Return the file that takes what the trainer process prints."""
        return self.path / "trainer.log"

    def submit_lock(self) -> FileLock:
        """Return the lock held for the moment in which a trainer is started, stopped or found dead."""
        return self._lock("submit.lock")

    def trainer_lock(self) -> FileLock:
        """Return the lock that a trainer holds for its life."""
        return self._lock("trainer.lock")

    def write_job(self, job: TrainingJob) -> None:
        """Keep the job for the trainer; paths are made absolute."""
        paths = {
            "train_file": job.train_file.resolve(),
            "validation_file": job.validation_file and job.validation_file.resolve(),
            "folder": job.folder.resolve(),
            "cache": job.cache.resolve(),
        }
        write_text(self.path / "job.json", job.model_copy(update=paths).model_dump_json())

    def read_job(self) -> TrainingJob | None:
        """Return the job, or None when none was ever submitted here."""
        return _read(self.path / "job.json", TrainingJob)

    def write_process(self, process: TrainerProcess) -> None:
        """Record the process that was started last."""
        write_text(self.path / "process.json", process.model_dump_json())

    def read_process(self) -> TrainerProcess | None:
        """Return the process that was started last."""
        return _read(self.path / "process.json", TrainerProcess)

    def write_state(self, state: TrainerState) -> None:
        """Replace the state; only the trainer does, or who holds the submit lock and knows it is dead."""
        write_text(self.path / "state.json", state.model_dump_json())

    def read_state(self) -> TrainerState | None:
        """Return the state, or None before the first submission."""
        return _read(self.path / "state.json", TrainerState)

    def write_checkpoint(self, content: bytes) -> None:
        """Replace the checkpoint by another, or keep it when the disk is full (StorageError)."""
        file = self.path / "checkpoint.pt"
        partial = file.with_name("checkpoint.partial")
        try:
            with partial.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise not_writable(file, error) from error

    def read_checkpoint(self) -> bytes | None:
        """Return the last checkpoint, or None when there is none."""
        file = self.path / "checkpoint.pt"
        return file.read_bytes() if file.exists() else None

    def drop_checkpoint(self) -> None:
        """Delete the checkpoint: a completed job is not continued."""
        (self.path / "checkpoint.pt").unlink(missing_ok=True)

    def add_loss(self, point: LossPoint) -> None:
        """Append a loss."""
        self._append("losses.jsonl", point)

    def losses(self) -> tuple[LossPoint, ...]:
        """Return the losses by step; of a step that was repeated after a crash, the last."""
        points = {(point.step, point.split): point for point in self._lines("losses.jsonl", LossPoint)}
        return tuple(points[key] for key in sorted(points))

    def add_event(self, message: str) -> None:
        """Append an event that happens now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._append("events.jsonl", JobEvent(at=now, message=message))

    def events(self) -> tuple[JobEvent, ...]:
        """Return the events in the order in which they happened."""
        return tuple(self._lines("events.jsonl", JobEvent))

    def repair(self) -> None:
        """Cut a line that a dying trainer left unfinished, so that the next one starts on its own."""
        for name in ("losses.jsonl", "events.jsonl"):
            path = self.path / name
            if path.exists():
                whole, newline, torn = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
                if torn:
                    write_text(path, whole) if newline else path.unlink()

    def log_tail(self, lines: int = 3) -> str:
        """Return the last lines of the log that are not blank, joined by `/`."""
        if not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])

    def _lock(self, name: str) -> FileLock:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(self.path, error) from error
        return FileLock(self.path / name)

    def _append(self, name: str, record: BaseModel) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(f"{record.model_dump_json()}\n")
        except OSError as error:
            raise not_writable(self.path / name, error) from error

    def _lines(self, name: str, kind: type[Record]) -> list[Record]:
        """Return the records of all finished lines; the last may still be in the writing."""
        path = self.path / name
        if not path.exists():
            return []
        finished = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return [kind.model_validate_json(line) for line in finished]


def _read(path: Path, kind: type[Record]) -> Record | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def not_writable(path: Path, error: OSError) -> StorageError:
    """Return the error to raise when the disk is full or the folder cannot be written."""
    return StorageError(
        f"{path} could not be written: {error.strerror}.",
        "Free space or make the folder writable, then submit the job again: it continues.",
    )
