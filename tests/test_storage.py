"""The store: migrations, decisions made once, files written whole or not at all."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from agents.errors import Conflict, NotFound, StorageError
from tasks.storage import registry
from tasks.storage.drafts import claim_run
from tasks.storage.jobs import get_job, job_events, jobs, loss_curve, update_job
from tasks.storage.objects import write_lines
from tasks.storage.settings import Settings
from tasks.storage.store import SCHEMA, Store, open_store
from tasks.storage.tables import Dataset, Draft, Evaluation, Job, Live, Promotion, Version
from tasks.training.base import JobEvent, JobState, LossPoint


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(Settings(home=tmp_path))


@pytest.fixture
def job(store: Store) -> str:
    store.add_new(
        Dataset(id="d", persona="jamie", design="x", cast="{}", train_file="", held_out_file="", counts="{}")
    )
    store.add_new(
        Job(
            id="job-1",
            persona="jamie",
            backend="local",
            base_model="local/m",
            dataset_id="d",
            hyperparameters="{}",
            status="queued",
        )
    )
    return "job-1"


def test_the_schema_is_the_newest_migration(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlmodel import SQLModel

    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == SCHEMA
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_two_processes_can_open_a_new_home_at_once(tmp_path: Path) -> None:
    code = "from tasks.storage.store import open_store; open_store(); print('open')"
    environment = {**os.environ, "UNDERSTUDY_HOME": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == ["open", "open"]


def test_a_run_keeps_its_parameters(store: Store) -> None:
    claim_run(store, "x", "jamie", '{"seed":1}')
    draft = {"text": "", "model": "m", "attempts": 1, "reasons": "[]", "cost": 0.0, "seconds": 0.0}
    tokens = {"prompt_tokens": 0, "completion_tokens": 0}
    store.add_new(Draft(run="x", stage="idea", position=0, status="accepted", **draft, **tokens))
    claim_run(store, "x", "jamie", '{"seed":1}')
    with pytest.raises(Conflict, match="seed 1 → 2"):
        claim_run(store, "x", "jamie", '{"seed":2}')


def test_a_transition_is_told_once(store: Store, job: str) -> None:
    running = JobState(status="running", step=1, total_steps=2, losses=(LossPoint(step=1, loss=2.0),))
    done = JobState(
        status="completed",
        step=2,
        total_steps=2,
        losses=(LossPoint(step=1, loss=2.0), LossPoint(step=2, loss=1.0)),
        events=(JobEvent(at="t", message="done"),),
    )
    assert update_job(store, job, running) == ("queued", True)
    assert update_job(store, job, done) == ("running", True)
    assert update_job(store, job, done) == ("completed", False)
    assert update_job(store, job, JobState(status="error")) == ("completed", False)
    assert [point.loss for point in loss_curve(store, job)] == [2.0, 1.0]
    assert [event.message for event in job_events(store, job)] == ["done"]
    assert jobs(store, open_only=True) == []


def test_of_many_watchers_one_is_told_of_a_transition(store: Store, job: str) -> None:
    events = (JobEvent(at="t", message="started"),)
    losses = (LossPoint(step=1, loss=2.0),)
    state = JobState(status="running", step=1, total_steps=2, losses=losses, events=events)
    with ThreadPoolExecutor(8) as watchers:
        told = list(watchers.map(lambda _: update_job(store, job, state), range(16)))
    assert sum(moved for _, moved in told) == 1
    assert len(loss_curve(store, job)) == len(job_events(store, job)) == 1


def test_a_run_that_came_to_nothing_gives_its_name_free(store: Store) -> None:
    claim_run(store, "x", "jamie", '{"seed":1}')
    assert claim_run(store, "x", "jamie", '{"seed":2}').spec == '{"seed":2}'


def test_unknown_names_are_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="job-9"):
        get_job(store, "job-9")
    with pytest.raises(NotFound, match="none yet"):
        registry.get_version(store, "jamie-9.9.9")
    with pytest.raises(NotFound, match="no evaluation yet"):
        registry.latest_evaluation(store, "jamie")


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_a_decision_stands_and_only_a_pass_goes_live(store: Store, job: str, verdict: str) -> None:
    store.add_new(Evaluation(id="e", persona="jamie", job_id=job, spec="{}", report="{}"))
    store.add_new(
        Version(
            name="jamie-0.1.0",
            persona="jamie",
            number="0.1.0",
            change="first",
            job_id=job,
            evaluation_id="e",
            base_model="local/m",
            dataset_id="d",
            design="x",
        )
    )
    asked = {"evaluation_id": "e", "persona": "jamie", "version": "jamie-0.1.0", "decision": "{}"}
    state = "promoted" if verdict == "pass" else "refused"
    assert registry.decide(store, Promotion(verdict=verdict, state=state, **asked)).verdict == verdict
    assert registry.decide(store, Promotion(verdict="pass", state="promoted", **asked)).verdict == verdict
    assert registry.live_versions(store) == ({"jamie": "jamie-0.1.0"} if verdict == "pass" else {})


def test_a_live_row_must_name_a_version(store: Store) -> None:
    with pytest.raises(StorageError, match="FOREIGN KEY"):
        store.add_new(Live(persona="jamie", version="nobody"))


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "out.jsonl", ["before"])
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tasks.storage.objects import write_lines\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_lines(Path(sys.argv[1]), ('x' * 1000 for _ in range(100)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "StorageError" in result.stderr
    assert "nothing was lost" in result.stderr
    assert path.read_text() == "before\n"
    assert [found.name for found in tmp_path.iterdir()] == ["out.jsonl"]


def test_an_unwritable_home_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="UNDERSTUDY_HOME"):
        open_store(Settings(home=blocked / "home"))


def test_a_database_that_does_not_open_is_named_without_its_password(tmp_path: Path) -> None:
    broken = tmp_path / "understudy.db"
    broken.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match=r"understudy\.db"):
        open_store(Settings(home=tmp_path))
