"""Several processes at once on each database: migration, claims, transitions and decisions happen once."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from agents.errors import Conflict
from tasks.storage.drafts import claim_run
from tasks.storage.jobs import job_events, loss_curve, update_job
from tasks.storage.settings import Settings
from tasks.storage.stage import decide, live_versions
from tasks.storage.store import SCHEMA, Store, open_store
from tasks.storage.tables import Conversation, Promotion, Run
from tasks.training.base import JobEvent, JobState, LossPoint

PROCESSES = 4
START = """\
import sys
from tasks.storage.store import open_store
"""
READY = "print('ready', flush=True); sys.stdin.readline()\n"


def at_once(settings: Settings, before: str, race: str) -> list[str]:
    """Run code in several processes, the second part in all at the same moment; return what each says."""
    environment = {**os.environ, "UNDERSTUDY_HOME": str(settings.home)}
    if settings.database_url:
        environment["UNDERSTUDY_DATABASE_URL"] = settings.database_url
    command: Sequence[str] = [sys.executable, "-c", START + before + READY + race]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in processes]
    assert [errors for _, errors in said if errors] == []
    return [output.strip() for output, _ in said]


def test_many_processes_can_open_a_new_database_at_once(settings: Settings) -> None:
    assert at_once(settings, "", "open_store(); print('open')") == ["open"] * PROCESSES
    engine = open_store(settings).engine
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [SCHEMA]
    engine.dispose()


def test_of_many_claims_of_a_name_one_wins(settings: Settings, store: Store) -> None:
    before = """\
import os
from agents.errors import Conflict
from tasks.storage.drafts import claim_run
from tasks.storage.tables import Draft
store = open_store()
fields = dict(status="accepted", text="", model="m", attempts=1, reasons="[]", cost=0.0, seconds=0.0,
              prompt_tokens=0, completion_tokens=0)
"""
    race = """\
try:
    claim_run(store, "x", "jamie", '{"seed": %d}' % os.getpid())
    with store.session(write=True) as session:
        if session.get(Draft, ("x", "idea", 0)) is None:
            session.add(Draft(run="x", stage="idea", position=0, **fields))
    print("claimed")
except Conflict:
    print("refused")
"""
    said = at_once(settings, before, race)
    assert set(said) <= {"claimed", "refused"}
    with store.session() as session:
        standing = session.get_one(Run, "x").spec
    assert claim_run(store, "x", "jamie", standing).spec == standing
    with pytest.raises(Conflict):
        claim_run(store, "x", "jamie", '{"seed": -1}')


def test_a_claim_counts_up_without_losing_one(settings: Settings, store: Store) -> None:
    store.add_new(Run(name="x", persona="jamie", spec="0"))
    before = "from tasks.storage.tables import Run\nstore = open_store()\n"
    race = """\
for _ in range(25):
    with store.session(write=True) as session:
        run = session.get_one(Run, "x")
        run.spec = str(int(run.spec) + 1)
        session.add(run)
"""
    at_once(settings, before, race)
    with store.session() as session:
        assert session.get_one(Run, "x").spec == str(25 * PROCESSES)


def test_nobody_inserts_between_the_reads_and_writes_of_a_session(settings: Settings, store: Store) -> None:
    before = """\
from sqlmodel import func, select
from tasks.storage.tables import Conversation
import os
store = open_store()
count = select(func.count()).select_from(Conversation)
"""
    race = """\
for number in range(25):
    fields = dict(persona="jamie", category="c", source="s", messages="[]")
    store.add_new(Conversation(id=f"{os.getpid()}-{number}", **fields))
    with store.session(write=True) as session:
        seen = session.exec(count).one()
        session.add(Conversation(id=f"{os.getpid()}-{number}-again", **fields))
        session.flush()
        assert session.exec(count).one() == seen + 1
"""
    at_once(settings, before, race)
    with store.session() as session:
        assert len(session.exec(text(f"SELECT id FROM {Conversation.__tablename__}")).all()) == 50 * PROCESSES


def test_of_many_watching_processes_one_is_told_of_a_transition(
    settings: Settings, store: Store, job: str
) -> None:
    before = """\
from tasks.storage.jobs import update_job
from tasks.training.base import JobEvent, JobState, LossPoint
store = open_store()
state = JobState(status="completed", step=1, total_steps=1, losses=(LossPoint(step=1, loss=2.0),),
                 events=(JobEvent(at="t", message="done"),))
"""
    said = at_once(settings, before, "print(update_job(store, 'job-1', state)[1])")
    assert sorted(said) == ["False"] * (PROCESSES - 1) + ["True"]
    assert len(loss_curve(store, job)) == len(job_events(store, job)) == 1


def test_of_many_watching_threads_one_is_told_of_a_transition(store: Store, job: str) -> None:
    events, losses = (JobEvent(at="t", message="started"),), (LossPoint(step=1, loss=2.0),)
    state = JobState(status="running", step=1, total_steps=2, losses=losses, events=events)
    with ThreadPoolExecutor(8) as watchers:
        told = list(watchers.map(lambda _: update_job(store, job, state), range(16)))
    assert sum(moved for _, moved in told) == 1
    assert len(loss_curve(store, job)) == len(job_events(store, job)) == 1


def test_of_many_decisions_one_stands(settings: Settings, store: Store, version: str) -> None:
    before = """\
import os
from tasks.storage.stage import decide
from tasks.storage.tables import Promotion
store = open_store()
mine = Promotion(evaluation_id="e", persona="jamie", version="jamie-0.1.0", verdict="pass",
                 state="promoted", decision='{"by": %d}' % os.getpid())
"""
    said = at_once(settings, before, "print(decide(store, mine).decision)")
    assert len(set(said)) == 1
    late = Promotion(
        evaluation_id="e", persona="jamie", version=version, verdict="fail", decision="{}", state="refused"
    )
    assert decide(store, late).decision == said[0]
    assert live_versions(store) == {"jamie": version}
