"""Rounds of training: when one begins, that it begins once, and that its next step follows from the rows."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.personas import load_persona
from agents.schemas import Persona, Retraining, chat, fingerprint
from tasks.rate import set_contest
from tasks.rounds import (
    ASKS,
    begin_due,
    examples_arrived,
    move_on,
    next_step,
    reconcile_rounds,
    take_up_round,
)
from tasks.specs import EvaluateSpec
from tasks.storage.designs import keep_design
from tasks.storage.examples import dump_messages, examples
from tasks.storage.rounds import (
    appoint_judge,
    begin_round,
    end_round,
    example_counts,
    last_round,
    mark_told,
    rounds,
    set_job,
)
from tasks.storage.store import Store
from tasks.storage.tables import Dataset, Evaluation, Example, Job, Round, Version
from tasks.training.rounds import LastRound, Reason, Standing, why_not

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def store(home_store: Store) -> Store:
    return home_store


def persona(**config: object) -> Persona:
    return load_persona("jamie").model_copy(update={"retraining": Retraining.model_validate(config)})


def last(**changes: object) -> LastRound:
    jamie = load_persona("jamie")
    facts = {"number": 3, "begun": NOW - timedelta(hours=5), "open": False, "failed": False, "seed": 0}
    return LastRound(**{**facts, "design": jamie.design, "base_model": jamie.base_model, **changes})


def standing(new: int = 0, **changes: object) -> Standing:
    facts = {
        "last": last(),
        "begun_today": 1,
        "version": "jamie-0.1.0",
        "version_at": NOW - timedelta(days=3),
    }
    return Standing(new_examples=new, **{**facts, **changes})


@pytest.mark.parametrize(
    ("reason", "asked", "refusal"),
    [
        ("threshold", standing(19), "19 of the 20 new examples"),
        ("threshold", standing(20), None),
        ("threshold", standing(40, last=last(open=True)), "under way"),
        ("threshold", standing(40, begun_today=6), "6 rounds in 24 hours"),
        ("asked", standing(0), "Nothing changed since round 3"),
        ("asked", standing(1), None),
        ("asked", standing(0, last=last(design="another")), None),
        ("asked", standing(0, last=last(base_model="local/another")), None),
        ("asked", standing(0, last=last(failed=True)), None),
        ("asked", standing(0, last=None), "no examples yet"),
        ("daily", standing(0), "Nothing is trained"),
        ("weekly", standing(1), None),
        ("daily", standing(1, last=last(open=True)), "under way"),
        ("refresh", standing(0), "jamie-0.1.0 is 3 days old; it is refreshed after 30"),
        ("refresh", standing(0, version_at=NOW - timedelta(days=30)), None),
        ("refresh", standing(0, version_at=NOW - timedelta(days=30), last=last(open=True)), "under way"),
        ("refresh", standing(0, version=None, version_at=None), "no version yet"),
    ],
)
def test_a_round_begins_or_says_why_not(reason: Reason, asked: Standing, refusal: str | None) -> None:
    found = why_not(persona(), asked, reason, NOW)
    assert (found is None) if refusal is None else (found is not None and refusal in found)


def test_the_least_time_between_rounds_names_the_time_of_the_next() -> None:
    refused = why_not(persona(min_hours=6), standing(20), "threshold", NOW)
    assert refused == "The next round of jamie may begin at 2026-11-21 13:00 UTC."
    assert why_not(persona(min_hours=5), standing(20), "threshold", NOW) is None


def add_examples(store: Store, count: int, *, start: int = 0, name: str = "jamie") -> None:
    for number in range(start, start + count):
        store.add_new(
            Example(
                id=fingerprint(name, str(number)),
                persona=name,
                source="conversation",
                origin=f"c{number}",
                category="other",
                messages=dump_messages(
                    chat(("user", f"Question {number}"), ("assistant", f"Answer {number}"))
                ),
            )
        )


def test_the_threshold_takes_up_every_new_example_once(store: Store) -> None:
    add_examples(store, 19)
    assert begin_due(store, "jamie") is None
    add_examples(store, 3, start=19)
    begun = begin_due(store, "jamie")
    assert begun is not None
    assert (begun.number, begun.reason, begun.new_examples) == (1, "threshold", 22)
    assert example_counts(store) == {"jamie": (22, 0)}
    assert begin_due(store, "jamie") is None


def test_a_dataset_of_a_round_leaves_out_what_came_later(store: Store) -> None:
    add_examples(store, 20)
    begin_due(store, "jamie")
    add_examples(store, 5, start=20)
    assert len(list(examples(store, "jamie", up_to_round=1))) == 20
    assert len(list(examples(store, "jamie"))) == 25
    assert example_counts(store) == {"jamie": (25, 5)}


def test_of_many_threads_one_begins_the_round(store: Store) -> None:
    add_examples(store, 20)
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: begin_round(store, load_persona("jamie"), "threshold")[0], range(16)))
    assert sum(row is not None for row in begun) == 1
    assert len(rounds(store)) == 1


def test_two_processes_that_add_at_once_begin_one_round(store: Store, home: Path) -> None:
    code = """
import sys
from test_rounds import add_examples
from tasks.rounds import examples_arrived
from tasks.storage.store import open_store
store, start = open_store(), int(sys.argv[1])
for at in range(start, start + 40, 10):
    add_examples(store, 10, start=at)
    examples_arrived(store, "jamie", 10)
"""
    command = [sys.executable, "-c", code]
    places = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent / 'plugins'}"}
    environment = {**os.environ, **places, "UNDERSTUDY_HOME": str(home)}
    both = [subprocess.Popen([*command, str(start)], env=environment) for start in (0, 40)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert [(row.number, row.reason) for row in rounds(store)] == [(1, "threshold")]
    total, new = example_counts(store)["jamie"]
    assert (total, total - new) == (80, rounds(store)[0].new_examples)


def test_a_refresh_trains_the_same_data_with_another_seed(store: Store) -> None:
    add_examples(store, 20)
    begun = begin_due(store, "jamie")
    assert begun is not None
    end_round(store, begun, "promoted jamie-0.1.0")
    add_version(store, days=31)
    again, refusal = begin_round(store, load_persona("jamie"), "refresh")
    assert refusal is None
    assert again is not None
    assert (again.number, again.new_examples, again.seed) == (2, 0, begun.seed + 1)
    assert begin_round(store, load_persona("jamie"), "refresh")[0] is None


def add_version(store: Store, *, days: float) -> None:
    add_job(store, "completed")
    at = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
    store.add_new(Evaluation(id="e", persona="jamie", job_id="job-1", spec="{}", report="{}"))
    store.add_new(
        Version(
            name="jamie-0.1.0",
            persona="jamie",
            number="0.1.0",
            change="first",
            job_id="job-1",
            evaluation_id="e",
            base_model="local/smollm2-135m",
            dataset_id="d",
            design=load_persona("jamie").design,
            created_at=at,
        )
    )


def add_job(store: Store, status: str, *, error: str | None = None) -> None:
    cast = load_persona("jamie").model_dump_json()
    store.add_new(
        Dataset(id="d", persona="jamie", design="x", cast=cast, train_file="", held_out_file="", counts="{}")
    )
    store.add_new(
        Job(
            id="job-1",
            persona="jamie",
            backend="local",
            base_model="local/smollm2-135m",
            dataset_id="d",
            hyperparameters="{}",
            status=status,
            error=error,
        )
    )


def begun_round(store: Store, status: str | None = None, *, error: str | None = None) -> Round:
    add_examples(store, 20)
    row, _ = begin_round(store, load_persona("jamie"), "threshold")
    assert row is not None
    if status:
        add_job(store, status, error=error)
        set_job(store, "jamie", row.number, "job-1")
    found = last_round(store, "jamie")
    assert found is not None
    return found


def test_a_round_without_a_job_asks_for_its_training_and_again_only_after_a_while(store: Store) -> None:
    row = begun_round(store)
    step = move_on(store, row)
    assert step is not None
    assert (step.event, step.about, step.payload) == ("round.due", "jamie-1", {"reason": "threshold"})
    assert move_on(store, row) is None
    assert mark_told(store, row, "begun", again_after=0.0)


def test_a_step_that_nobody_takes_is_asked_for_five_times_and_then_the_round_has_failed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = begun_round(store)
    for time in range(1, ASKS + 1):
        assert mark_told(store, row, "begun", again_after=0.0) == time
    impatient = Store(store.settings.model_copy(update={"retell_seconds": 0.0}), store.engine)
    assert move_on(impatient, row) is not None  # no server is named: whoever should have come cannot
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert move_on(impatient, row) is None
    outcome = rounds(store)[0].outcome
    assert outcome is not None
    assert outcome.startswith("failed: asked 5 times for what follows 'begun'")


def test_who_judges_a_round_is_kept_with_it(store: Store) -> None:
    begun_round(store)
    assert rounds(store)[0].judge is None
    take_up_round.fn("jamie", "asked", "model:scripted/judge")
    take_up_round.fn("jamie", "threshold")
    assert rounds(store)[0].judge == "model:scripted/judge"


def test_whoever_asks_for_the_evaluation_of_a_round_its_judge_decides(store: Store) -> None:
    begun_round(store, "completed")
    asked = EvaluateSpec(persona="jamie", job="job-1")
    reference = set_contest.fn(asked)
    assert reference.judge == "reference"
    appoint_judge(store, rounds(store)[0], "model:scripted/write")
    chosen = set_contest.fn(asked)
    assert (chosen.judge, chosen.id != reference.id) == ("model:scripted/write", True)
    assert set_contest.fn(asked.model_copy(update={"judge": "reference"})).id == reference.id


def test_while_the_job_runs_a_round_waits_and_then_asks_for_its_evaluation(store: Store) -> None:
    assert next_step(store, begun_round(store, "running")) is None


def test_a_completed_job_asks_for_its_evaluation(store: Store) -> None:
    step = next_step(store, begun_round(store, "completed"))
    assert step is not None
    assert not isinstance(step, str)
    assert (step.event, step.payload) == ("job.completed", {"job": "job-1"})


def test_a_failed_job_ends_the_round_and_the_next_may_begin(store: Store) -> None:
    row = begun_round(store, "error", error="out of memory")
    add_examples(store, 20, start=20)
    assert move_on(store, row) is None
    found = rounds(store)
    assert found[0].outcome == "failed: out of memory"
    assert [(row.number, row.reason, row.new_examples) for row in found[1:]] == [(2, "threshold", 20)]


def test_a_repeated_event_finds_the_round_taken_up(store: Store) -> None:
    begun_round(store)
    assert take_up_round.fn("jamie", "threshold").number == 1
    add_job(store, "running")
    set_job(store, "jamie", 1, "job-1")
    again = take_up_round.fn("jamie", "threshold")
    assert again.number is None
    assert again.refusal == "Round 1 of jamie is under way with job-1."
    assert take_up_round.fn("jamie", "asked").number == 1


def test_nothing_changed_is_said_plainly(store: Store) -> None:
    end_round(store, begun_round(store), "promoted jamie-0.1.0")
    found = take_up_round.fn("jamie", "asked")
    assert found.number is None
    assert found.refusal is not None
    assert "Nothing changed since round 1 of jamie" in found.refusal


def test_a_redesign_is_a_change(store: Store) -> None:
    end_round(store, begun_round(store), "promoted jamie-0.1.0")
    jamie = load_persona("jamie")
    keep_design(store, jamie.model_copy(update={"system_prompt": "You are another Jamie."}))
    assert take_up_round.fn("jamie", "asked").number == 2


def test_what_was_lost_is_asked_for_again_from_the_rows(store: Store) -> None:
    add_examples(store, 20)
    assert reconcile_rounds.fn() == ["Round 1 of jamie began with 20 new examples."]
    assert reconcile_rounds.fn() == []


def test_nothing_arrived_begins_nothing(store: Store) -> None:
    add_examples(store, 20)
    examples_arrived(store, "jamie", 0)
    assert rounds(store) == []
