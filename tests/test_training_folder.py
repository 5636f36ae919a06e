"""A job's folder after any kind of end, and what a poll makes of it without a trainer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.errors import DatasetInvalid, ModelUnavailable, StorageError
from agents.plugins import load_plugin
from tasks.training.base import JobEvent, JobStatus, LossPoint, TrainingJob
from tasks.training.folder import JobFolder, TrainerProcess, TrainerState
from tasks.training.local import LocalTraining
from tasks.training.processes import describe, is_alive, stop


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    line = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    return TrainingJob(
        id="job-1",
        persona="jamie",
        base_model=str(tmp_path / "no-model"),
        train_file=tmp_path / "train.jsonl",
        folder=tmp_path / "job",
        cache=tmp_path / "cache",
    )


@pytest.fixture
def folder(job: TrainingJob) -> JobFolder:
    job.folder.mkdir()
    return JobFolder(job.folder)


def ended_process() -> TrainerProcess:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = describe(child.pid)
    child.wait()
    return process


def test_a_torn_last_line_is_neither_read_nor_in_the_way_of_the_next(folder: JobFolder) -> None:
    folder.add_loss(LossPoint(step=1, loss=2.0))
    file = folder.path / "losses.jsonl"
    file.write_bytes(file.read_bytes() + b'{"step": 2, "lo')
    assert folder.losses() == (LossPoint(step=1, loss=2.0),)
    folder.repair()
    folder.add_loss(LossPoint(step=2, loss=1.5))
    assert [point.loss for point in folder.losses()] == [2.0, 1.5]


def test_a_first_line_that_is_torn_leaves_nothing(folder: JobFolder) -> None:
    (folder.path / "events.jsonl").write_bytes(b'{"at": "2026-')
    assert folder.events() == ()
    folder.repair()
    folder.add_event("Started.")
    assert [event.message for event in folder.events()] == ["Started."]


def test_of_a_step_that_was_repeated_the_last_loss_counts(folder: JobFolder) -> None:
    for step, loss in [(1, 3.0), (2, 2.5), (2, 2.0)]:
        folder.add_loss(LossPoint(step=step, loss=loss))
    folder.add_loss(LossPoint(step=2, loss=9.0, split="validation"))
    assert [(p.step, p.split, p.loss) for p in folder.losses()] == [
        (1, "train", 3.0),
        (2, "train", 2.0),
        (2, "validation", 9.0),
    ]


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "job")):
        JobFolder(tmp_path / "job").submit_lock()


def test_a_job_that_was_never_submitted_is_queued(job: TrainingJob) -> None:
    assert LocalTraining().poll(job, "").status == "queued"


def test_a_trainer_that_is_gone_is_an_error_with_its_last_words(folder: JobFolder, job: TrainingJob) -> None:
    process = ended_process()
    folder.write_state(TrainerState(status="running", step=3, total_steps=9, process=process))
    folder.log.write_text("Loading\n\nRuntimeError: the lights went out\n")
    state = LocalTraining().poll(job, "job-1")
    assert state.status == "error"
    assert state.step == 3
    assert f"process {process.pid}" in (state.error or "")
    assert "step 3 of 9" in (state.error or "")
    assert "RuntimeError: the lights went out" in (state.error or "")


def test_a_reused_pid_is_not_taken_for_the_trainer(folder: JobFolder, job: TrainingJob) -> None:
    ours = describe(os.getpid())
    folder.write_state(TrainerState(status="running", process=ours))
    assert LocalTraining().poll(job, "job-1").status == "running"
    folder.write_state(
        TrainerState(status="running", process=ours.model_copy(update={"created": ours.created - 3600}))
    )
    assert LocalTraining().poll(job, "job-1").status == "error"


def test_an_adapter_that_vanished_is_not_reported_as_success(folder: JobFolder, job: TrainingJob) -> None:
    folder.adapter.mkdir()
    folder.write_state(TrainerState(status="completed", step=9, total_steps=9))
    assert LocalTraining().poll(job, "job-1").adapter == folder.adapter
    folder.adapter.rmdir()
    state = LocalTraining().poll(job, "job-1")
    assert (state.status, state.adapter) == ("error", None)


@pytest.mark.parametrize("status", ["error", "cancelled"])
def test_a_job_that_ended_badly_is_taken_up_though_its_trainer_is_still_leaving(
    folder: JobFolder, job: TrainingJob, status: JobStatus
) -> None:
    folder.write_state(TrainerState(status=status, process=describe(os.getpid())))
    with pytest.raises(ModelUnavailable):
        LocalTraining().submit(job)
    folder.write_state(TrainerState(status="running", process=describe(os.getpid())))
    assert LocalTraining().submit(job) == "job-1"


def test_a_checkpoint_is_replaced_whole(folder: JobFolder) -> None:
    assert folder.read_checkpoint() is None
    folder.write_checkpoint(b"one")
    folder.write_checkpoint(b"two")
    assert folder.read_checkpoint() == b"two"
    folder.drop_checkpoint()
    assert folder.read_checkpoint() is None
    folder.path.rmdir()
    with pytest.raises(StorageError, match="checkpoint"):
        folder.write_checkpoint(b"three")


def test_cancel_leaves_a_job_that_has_ended_as_it_ended(folder: JobFolder, job: TrainingJob) -> None:
    folder.write_state(TrainerState(status="error", error="no luck"))
    LocalTraining().cancel(job, "job-1")
    assert LocalTraining().poll(job, "job-1").error == "no luck"


def test_cancel_before_the_trainer_ever_ran_is_kept(job: TrainingJob) -> None:
    LocalTraining().cancel(job, "")
    state = LocalTraining().poll(job, "")
    assert state.status == "cancelled"
    assert isinstance(state.events[-1], JobEvent)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "empty"), ("\n\n", "empty"), ('{"messages": []}\n', ":1"), ("{}\nnot json\n", ":1")],
)
def test_bad_data_is_refused_before_anything_starts(job: TrainingJob, content: str, message: str) -> None:
    job.train_file.write_text(content)
    with pytest.raises(DatasetInvalid, match=message):
        LocalTraining().submit(job)
    assert not (job.folder / "process.json").exists()


def test_a_missing_base_model_is_refused_before_anything_starts(job: TrainingJob) -> None:
    with pytest.raises(ModelUnavailable, match="no-model"):
        LocalTraining().submit(job)
    assert not (job.folder / "process.json").exists()


def test_stop_ends_a_process_and_forgives_one_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = describe(child.pid)
    assert is_alive(process)
    stop(process)
    assert not is_alive(process)
    assert child.poll() is not None
    stop(process)


def test_the_backend_is_found_as_a_plugin_and_loads_nothing_heavy() -> None:
    assert load_plugin("training", "local") is LocalTraining
    heavy = ["torch", "transformers", "peft"]
    code = f"import sys, tasks.training.local; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
