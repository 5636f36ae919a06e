"""Train on this machine: one detached trainer process per job folder, watched through its files.

Does not know how training works, and loads nothing heavy: `tasks/training/lora.py` is the trainer.
"""

from __future__ import annotations

from agents.errors import DatasetInvalid
from tasks.sources.files import read_conversations
from tasks.training.base import TERMINAL, Hyperparameters, JobState, JobStatus, TrainingJob
from tasks.training.folder import JobFolder, TrainerProcess, TrainerState
from tasks.training.processes import is_alive, start_module, stop

TRAINER = "tasks.training.lora"


class LocalTraining:
    """Transformers and PEFT in a process of its own, which survives the one that submitted it."""

    # Measured on the embedded 135M model with 54 short conversations, held-out loss in nats a token:
    # 2.12 after 2 epochs of single sequences at 1.5e-3, 2.14 after 3 epochs of pairs, which take half
    # as long again. Larger bases want a smaller learning rate (the hosted reference for 8B is 1e-5).
    recipe = Hyperparameters(epochs=2, learning_rate=1.5e-3, batch_sequences=1)

    def submit(self, job: TrainingJob) -> str:
        """Start the job's trainer unless it runs or has completed; return the job's id.

        A trainer that died, failed or was cancelled is continued from its last checkpoint. Raises
        DatasetInvalid and ModelUnavailable before anything is started, StorageError when the folder cannot
        be written.
        """
        folder = JobFolder(job.folder)
        if _needs_trainer(folder):
            _check(job)
            with folder.submit_lock():
                if _needs_trainer(folder):
                    _start(folder, job)
        return job.id

    def poll(self, job: TrainingJob, backend_id: str) -> JobState:
        """Return the state of the job without waiting; a trainer that is gone unfinished is an error."""
        folder = JobFolder(job.folder)
        state = folder.read_state()
        if state is not None and not _has_trainer(folder):
            with folder.submit_lock():
                state = _settled(folder)
        return _job_state(folder, state or TrainerState(status="queued"))

    def cancel(self, job: TrainingJob, backend_id: str) -> None:
        """Stop the trainer and record the job as cancelled; one that has ended stays as it ended."""
        folder = JobFolder(job.folder)
        with folder.submit_lock():
            if _status(folder) in TERMINAL:
                return
            for process in _processes(folder):
                stop(process)
            state = folder.read_state() or TrainerState(status="queued")
            if state.status not in TERMINAL:
                folder.repair()
                folder.write_state(state.model_copy(update={"status": "cancelled", "seconds_left": None}))
                folder.add_event(f"Cancelled at step {state.step} of {state.total_steps}.")


def _check(job: TrainingJob) -> None:
    from agents.local.checkpoints import prepare_checkpoint

    for file in filter(None, (job.train_file, job.validation_file)):
        if not any(True for _ in read_conversations(file)):
            raise DatasetInvalid(f"{file} is empty.", "Give at least one conversation.")
    prepare_checkpoint(job.base_model, job.cache)


def _start(folder: JobFolder, job: TrainingJob) -> None:
    before = folder.read_state() or TrainerState(status="queued")
    folder.write_job(job)
    folder.write_state(before.model_copy(update={"status": "queued", "error": None}))
    folder.write_process(start_module(TRAINER, [str(folder.path.resolve())], folder.log))


def _needs_trainer(folder: JobFolder) -> bool:
    """Tell whether nobody works on a job that is not done; who wrote a terminal state is on its way out."""
    status = _status(folder)
    return status in {"error", "cancelled"} or (status == "queued" and not _has_trainer(folder))


def _has_trainer(folder: JobFolder) -> bool:
    return any(is_alive(process) for process in _processes(folder))


def _processes(folder: JobFolder) -> list[TrainerProcess]:
    state = folder.read_state()
    recorded = (folder.read_process(), state.process if state else None)
    return [process for process in recorded if process is not None]


def _status(folder: JobFolder) -> JobStatus:
    state = _settled(folder)
    return state.status if state else "queued"


def _settled(folder: JobFolder) -> TrainerState | None:
    """Return the state, as an error where nobody is left to finish it; hold the submit lock to rely on it."""
    has_trainer = _has_trainer(folder)
    state = folder.read_state()
    if state is None or has_trainer:
        return state
    if state.status == "completed" and not folder.adapter.is_dir():
        return _failed(state, f"The job completed, but its adapter {folder.adapter} is gone.")
    if state.status in TERMINAL:
        return state
    return _failed(state, _last_words(folder, state), interrupted=True)


def _failed(state: TrainerState, reason: str, *, interrupted: bool = False) -> TrainerState:
    update = {"status": "error", "seconds_left": None, "error": reason, "interrupted": interrupted}
    return state.model_copy(update=update)


def _last_words(folder: JobFolder, state: TrainerState) -> str:
    process = state.process or folder.read_process()
    said = folder.log_tail()
    return (
        f"The trainer{f' (process {process.pid})' if process else ''} ended at step {state.step} of "
        f"{state.total_steps} without finishing. "
        + (f"Its last words: {said}" if said else "It said nothing: it was killed, or memory ran out.")
        + " Submit the job again to continue from its last checkpoint."
    )


def _job_state(folder: JobFolder, state: TrainerState) -> JobState:
    return JobState(
        **state.model_dump(exclude={"process"}),
        losses=folder.losses(),
        events=folder.events(),
        adapter=folder.adapter if state.status == "completed" else None,
    )
