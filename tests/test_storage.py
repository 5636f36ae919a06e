"""The store on each database: migrations, decisions made once, files written whole or not at all."""

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import func, select

from agents.errors import Conflict, NotFound, StorageError
from tasks.storage import calls, conversations, designs, drafts, examples, registry, rounds, stage
from tasks.storage import jobs as jobs_module
from tasks.storage.drafts import claim_run
from tasks.storage.jobs import get_job, job_events, jobs, loss_curve, update_job
from tasks.storage.objects import write_lines
from tasks.storage.settings import Settings, make_home
from tasks.storage.store import SCHEMA, Store, open_store
from tasks.storage.tables import Conversation, Draft, Live, Loss, Promotion
from tasks.training.base import JobEvent, JobState, LossPoint


def test_the_schema_is_the_newest_migration(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlmodel import SQLModel

    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == SCHEMA
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_a_row_is_inserted_once_and_a_batch_says_which_were_new(store: Store) -> None:
    rows = [conversation(name) for name in "abca"]
    assert store.add_new(conversation("b"))
    assert store.add_rows(rows) == [True, False, True, False]
    assert store.add_rows(rows) == [False] * 4
    assert store.add_new(conversation("d")) is True
    assert store.add_new(conversation("d")) is False


def conversation(name: str) -> Conversation:
    return Conversation(id=name, persona="jamie", category="c", source="s", messages="[]")


def test_a_batch_is_inserted_whole_or_not_at_all(store: Store, job: str) -> None:
    with pytest.raises(StorageError, match="losses was refused"):
        store.add_rows([Loss(job_id=at, split="train", step=1, loss=2.0) for at in (job, "nobody")])
    assert loss_curve(store, job) == []


def test_a_session_that_reads_sees_one_state_and_changes_nothing(store: Store) -> None:
    count = select(func.count()).select_from(Conversation)
    with store.session() as session:
        assert session.exec(count).one() == 0
        store.add_new(conversation("a"))
        assert session.exec(count).one() == 0
    with pytest.raises(StorageError, match=r"read.?only"), store.session() as session:
        session.add(conversation("b"))
    with store.session() as session:
        assert session.exec(count).one() == 1


def test_every_query_waits_out_a_database_that_went_away() -> None:
    nouns = [calls, conversations, designs, drafts, examples, jobs_module, registry, rounds, stage]
    queries = [
        found
        for noun in nouns
        for name, found in vars(noun).items()
        if inspect.isfunction(found)
        and found.__module__ == noun.__name__
        and not name.startswith("_")
        and next(iter(inspect.signature(found).parameters), "") == "store"
    ]
    assert len(queries) > 20
    assert [query.__qualname__ for query in queries if not hasattr(query, "__wrapped__")] == []


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
def test_a_decision_stands_and_only_a_pass_goes_live(store: Store, version: str, verdict: str) -> None:
    asked = {"evaluation_id": "e", "persona": "jamie", "version": version, "decision": "{}"}
    state = "promoted" if verdict == "pass" else "refused"
    assert stage.decide(store, Promotion(verdict=verdict, state=state, **asked)).verdict == verdict
    other = "inconclusive" if verdict == "fail" else "fail"
    assert stage.decide(store, Promotion(verdict=other, state="refused", **asked)).verdict == verdict
    assert stage.live_versions(store) == ({"jamie": version} if verdict == "pass" else {})


def test_a_live_row_must_name_a_version(store: Store) -> None:
    with pytest.raises(StorageError, match=r"(?i)foreign key"):
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


def test_a_worker_needs_a_home_by_its_whole_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "run")
    with pytest.raises(StorageError, match=r"home \.understudy is relative.*UNDERSTUDY_HOME"):
        make_home(Settings())
    assert make_home(Settings(home=tmp_path / "home")) == tmp_path / "home"
    assert not (tmp_path / ".understudy").exists()
