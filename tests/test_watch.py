"""Watching: whoever looks moves a job forward, and what happens to it is told once."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from scripted_training import say, submissions

from agents.errors import Conflict, NotFound
from agents.personas import load_persona
from tasks.finetune import resume_job, training_job
from tasks.storage.jobs import get_job, jobs, update_job
from tasks.storage.leases import lease_if_free
from tasks.storage.rounds import begin_round, rounds, set_job
from tasks.storage.store import Store
from tasks.storage.tables import Dataset, Example, Job, Lease, Round
from tasks.training.base import JobState
from tasks.watch import RESTARTS, cancel_job, poll_jobs, poll_once, stuck_reason


@pytest.fixture
def store(home_store: Store) -> Store:
    files = {"train_file": "train", "held_out_file": "held", "counts": "{}"}
    home_store.add_new(Dataset(id="d", persona="jamie", design="x", cast="{}", **files))
    return home_store


def submitted(store: Store, name: str = "job-1", **changes: object) -> Path:
    """Record a job that its backend has, and return its folder."""
    facts = {"persona": "jamie", "backend": "scripted", "base_model": "local/m", "dataset_id": "d"}
    job = {"hyperparameters": "{}", "status": "queued", "backend_id": f"scripted-{name}"}
    store.add_new(Job(id=name, **{**facts, **job, **changes}))
    return training_job(store, get_job(store, name)).folder


def poll(store: Store, name: str = "job-1") -> Job:
    poll_once(store, get_job(store, name))
    return get_job(store, name)


def test_a_job_that_was_never_handed_over_is_adopted(store: Store) -> None:
    folder = submitted(store, backend_id=None)
    job = poll(store)
    assert (job.status, job.backend_id, submissions(folder)) == ("running", "scripted-job-1", 1)
    poll(store)
    assert submissions(folder) == 1


def test_a_job_whose_submission_is_under_way_elsewhere_is_not_submitted_twice(store: Store) -> None:
    folder = submitted(store, backend_id=None)
    code = "from tasks.watch import poll_jobs; poll_jobs.fn(None)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "plugins")}
    with lease_if_free(store, "submit job-1") as held:
        assert held
        other = subprocess.Popen([sys.executable, "-c", code], env=environment)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=8)
        assert submissions(folder) == 0
    assert other.wait(timeout=60) == 0
    assert submissions(folder) == 1


def test_an_interrupted_job_is_continued_three_times_and_then_ends(store: Store) -> None:
    folder = submitted(store)
    for restart in range(1, RESTARTS + 1):
        say(folder, status="error", error="the trainer is gone", interrupted=True)
        job = poll(store)
        assert (job.status, job.restarts, submissions(folder)) == ("running", restart, restart)
    say(folder, status="error", error="the trainer is gone", interrupted=True)
    job = poll(store)
    assert (job.status, job.error, submissions(folder)) == ("error", "the trainer is gone", RESTARTS)


def test_an_error_of_the_training_itself_is_not_tried_again(store: Store) -> None:
    folder = submitted(store)
    say(folder, status="error", error="loss is not a number")
    assert poll(store).error == "loss is not a number"
    assert submissions(folder) == 0


def test_a_silent_job_is_stuck_once_and_no_more_when_it_moves(store: Store) -> None:
    folder = submitted(store)
    say(folder, status="running", step=3, total_steps=10, seconds=30)
    long_ago = (datetime.now(UTC) - timedelta(seconds=1000)).isoformat(timespec="milliseconds")
    poll(store)
    with store.session(write=True) as session:
        job = session.get_one(Job, "job-1")
        job.progressed_at = long_ago
        session.add(job)
    stuck = poll(store).stuck
    assert stuck is not None
    assert stuck.startswith("running at step 3 of 10 without progress for 1000 s (patience 900 s)")
    assert poll(store).stuck == stuck
    say(folder, status="running", step=4, total_steps=10, seconds=40)
    assert poll(store).stuck is None


@pytest.mark.parametrize(
    ("silent", "seconds", "step", "is_stuck"),
    [(899, 0, 0, False), (901, 0, 0, True), (901, 1000, 10, False), (1001, 1000, 10, True)],
)
def test_the_rule_of_being_stuck(silent: int, seconds: int, step: int, is_stuck: bool) -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    job = Job(
        id="j",
        persona="p",
        backend="b",
        base_model="m",
        dataset_id="d",
        hyperparameters="{}",
        status="running",
        step=step,
        seconds=seconds,
        progressed_at=(at - timedelta(seconds=silent)).isoformat(),
    )
    assert (stuck_reason(job, 900, at) is not None) == is_stuck


def test_of_two_that_see_a_job_end_one_is_told(store: Store) -> None:
    submitted(store, status="running")
    code = """
from tasks.storage.jobs import update_job
from tasks.storage.store import open_store
from tasks.training.base import JobState
print(update_job(open_store(), "job-1", JobState(status="completed"))[1])
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert sorted(process.communicate(timeout=60)[0].strip() for process in both) == [*["False"] * 3, "True"]


def test_a_job_that_ended_stays_as_it_ended(store: Store) -> None:
    submitted(store, status="completed")
    assert update_job(store, "job-1", JobState(status="error", error="late")) == ("completed", False)
    assert get_job(store, "job-1").error is None


def test_every_open_job_is_polled_and_no_other(store: Store) -> None:
    for name, status in [("job-1", "running"), ("job-2", "queued"), ("job-3", "completed")]:
        say(submitted(store, name, status=status), status="running", step=1, total_steps=2)
    assert {report.id for report in poll_jobs.fn(None)} == {"job-1", "job-2"}
    assert [job.step for job in sorted(jobs(store), key=lambda job: job.id)] == [1, 1, 0]


def test_a_backend_that_cannot_be_asked_does_not_hide_the_other_jobs(store: Store) -> None:
    submitted(store, "job-1", backend="vanished")
    say(submitted(store, "job-2", status="running"), status="running", step=4, total_steps=9)
    assert {report.id: report.step for report in poll_jobs.fn(None)} == {"job-1": 0, "job-2": 4}
    stuck = get_job(store, "job-1").stuck
    assert stuck is not None
    assert "vanished could not be asked" in stuck
    with pytest.raises(NotFound, match="vanished"):
        poll_jobs.fn("job-1")


def refused(store: Store, **changes: object) -> Job:
    """Return a job that its backend will not take."""
    folder = submitted(store, backend_id=None, **changes)
    folder.mkdir(parents=True)
    (folder / "refuse").touch()
    return get_job(store, "job-1")


def test_a_job_that_its_backend_will_not_take_ends_with_the_reason_and_its_round_too(store: Store) -> None:
    refused(store)
    row = round_with(store, "job-1")
    (report,) = poll_jobs.fn(None)
    assert (report.status, report.moved) == ("error", True)
    assert get_job(store, "job-1").error == "The backend is closed. Come back later."
    assert rounds(store)[0].outcome == f"failed: {report.error}"
    assert row.ended_at is None
    assert poll_jobs.fn(None) == []


def round_with(store: Store, job: str) -> Round:
    message = '[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]'
    facts = {"persona": "jamie", "source": "s", "origin": "o", "category": "c", "messages": message}
    store.add_new(Example(id="1", **facts))
    row, _ = begin_round(store, load_persona("jamie"), "asked")
    assert row is not None
    set_job(store, "jamie", row.number, job)
    return row


@pytest.mark.parametrize("handed_over", [True, False])
def test_a_cancelled_job_ends_its_round_and_may_be_resumed(store: Store, handed_over: bool) -> None:
    folder = submitted(store, **({} if handed_over else {"backend_id": None}))
    round_with(store, "job-1")
    assert (cancel_job(store, "job-1").status, rounds(store)[0].outcome) == ("cancelled", "cancelled")
    with pytest.raises(Conflict, match="job-1 is cancelled already"):
        cancel_job(store, "job-1")
    resume_job(store, "job-1")
    assert (get_job(store, "job-1").status, submissions(folder)) == ("queued", 1)
    assert (rounds(store)[0].outcome, rounds(store)[0].ended_at) == (None, None)
    with pytest.raises(Conflict, match="job-1 is queued"):
        resume_job(store, "job-1")


def test_the_lease_of_a_process_that_died_is_free_at_once(store: Store) -> None:
    code = """
import os, signal
from tasks.storage.leases import lease_when_free
from tasks.storage.store import open_store
with lease_when_free(open_store(), "work"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    with lease_if_free(store, "work") as held:
        assert held
    with store.session(write=True) as session:
        session.merge(Lease(name="work", holder="elsewhere 1|1|0.0|x", until=time.time() + 30))
    with lease_if_free(store, "work") as held:
        assert not held
