"""Notices: what people are told of follows from the rows, so that what was lost is told again, once."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.evaluation.gate import Check, Decision
from tasks.notices import Notice, notices, of_promotion
from tasks.storage.store import Store
from tasks.storage.tables import Appearance, Dataset, Evaluation, Job, Promotion, Round, Version

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CHECK = Check(name="win rate", value="80 %", threshold="at least 50 %", verdict="pass")
PASSED = Decision(verdict="pass", checks=(CHECK,)).model_dump_json()


def ago(**span: float) -> str:
    return (NOW - timedelta(**span)).isoformat(timespec="milliseconds")


@pytest.fixture
def store(home_store: Store) -> Store:
    files = {"train_file": "train", "held_out_file": "held", "counts": "{}"}
    home_store.add_new(Dataset(id="d", persona="jamie", design="x", cast="{}", **files))
    return home_store


def add_job(store: Store, name: str, status: str, **changes: object) -> None:
    facts = {"persona": "jamie", "backend": "local", "base_model": "m", "dataset_id": "d"}
    times = {"created_at": ago(hours=2), "updated_at": ago(hours=1), "progressed_at": ago(hours=1)}
    store.add_new(Job(id=name, hyperparameters="{}", status=status, **{**facts, **times, **changes}))


def add_promotion(store: Store, state: str, **changes: object) -> None:
    lineage = {"base_model": "m", "dataset_id": "d", "design": "x"}
    add_job(store, "job-v", "completed")
    store.add_new(Evaluation(id="e", persona="jamie", job_id="job-v", spec="{}", report="{}"))
    facts = {"persona": "jamie", "number": "0.1.0", "change": "first", "job_id": "job-v"}
    store.add_new(Version(name="jamie-0.1.0", evaluation_id="e", **facts, **lineage))
    decided = {"persona": "jamie", "version": "jamie-0.1.0", "verdict": "pass", "decision": PASSED}
    row = {"evaluation_id": "e", "state": state, "created_at": ago(hours=1), **decided, **changes}
    store.add_new(Promotion(**row))


def heard(store: Store, at: datetime = NOW) -> list[tuple[str, str]]:
    return [(notice.event, notice.name) for notice in notices(store, at)]


@pytest.mark.parametrize("state", ["promoted", "refused", "waiting", "rejected"])
def test_every_decision_is_told(store: Store, state: str) -> None:
    add_promotion(store, state)
    (found,) = notices(store, NOW)
    assert (found.event, found.name) == (f"version.{state}", "jamie-0.1.0")
    assert (found.payload["reasons"], found.payload["evaluation"]) == (
        "win rate 80 %, threshold at least 50 %: pass",
        "e",
    )


def test_what_is_out_of_date_is_not_told(store: Store) -> None:
    add_promotion(store, "outdated")
    assert heard(store) == []


def test_an_answer_is_told_besides_the_question(store: Store) -> None:
    add_promotion(store, "waiting")
    (asked,) = notices(store, NOW)
    with store.session(write=True) as session:
        row = session.get_one(Promotion, "e")
        row.state, row.decided_by, row.decided_at = "promoted", "Ana", ago(minutes=5)
        session.add(row)
    (answered,) = notices(store, NOW)
    assert (answered.event, answered.payload["by"]) == ("version.promoted", "Ana")
    assert answered.id != asked.id


def test_a_rollback_is_told_and_who_came_by_a_decision_is_not(store: Store) -> None:
    facts = {"persona": "jamie", "version": None}
    for number, reason in enumerate(["promoted", "rolled back"], start=1):
        store.add_new(Appearance(number=number, reason=reason, at=ago(minutes=number), **facts))
    assert heard(store, NOW + timedelta(minutes=1)) == [("version.rolled-back", "jamie")]


def test_a_job_in_trouble_is_told_and_one_that_completed_is_not(store: Store) -> None:
    add_job(store, "job-1", "error", error="out of memory")
    add_job(store, "job-2", "completed")
    add_job(store, "job-3", "running")
    add_job(store, "job-4", "running", stuck="silent")
    add_job(store, "job-5", "cancelled")
    told = {notice.name: (notice.event, notice.payload["error"]) for notice in notices(store, NOW)}
    assert told == {
        "job-1": ("job.error", "out of memory"),
        "job-4": ("job.stuck", "silent"),
        "job-5": ("job.cancelled", "cancelled"),
    }


def test_a_round_that_failed_is_told_unless_its_job_is(store: Store) -> None:
    add_job(store, "job-1", "error", error="out of memory")
    facts = {"persona": "jamie", "reason": "asked", "new_examples": 1, "design": "x", "base_model": "m"}
    ended = {"outcome": "failed: no examples", "ended_at": ago(hours=1)}
    for number, job in enumerate([None, "job-1"], start=1):
        store.add_new(Round(number=number, job_id=job, **facts, **ended))
    store.add_new(Round(number=3, outcome="promoted jamie-0.1.0", ended_at=ago(hours=1), **facts))
    assert heard(store) == [("job.error", "job-1"), ("round.failed", "jamie-1")]


@pytest.mark.parametrize(("age", "count"), [(30, 0), (61, 1), (86_000, 1), (86_500, 0)])
def test_what_is_new_may_be_on_its_way_and_what_is_old_is_left(store: Store, age: int, count: int) -> None:
    add_promotion(store, "promoted", created_at=ago(seconds=age))
    assert len(heard(store)) == count


def test_a_notice_is_known_by_what_it_says_of_whom_and_when(store: Store) -> None:
    add_promotion(store, "promoted")
    with store.session() as session:
        told = of_promotion(session.get_one(Promotion, "e"))
    assert told is not None
    (found,) = notices(store, NOW)
    assert found.id == told.id
    later = Notice.model_validate(told.model_dump() | {"at": ago(minutes=3)})
    assert later.id != told.id
