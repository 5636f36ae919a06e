"""Simulation: the plan's counts exactly, in their bands, seen from every side, replaced where dropped."""

import asyncio
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from agents.errors import Conflict, InputError, ModelUnavailable, NotFound
from agents.kinds import load_kinds
from flows.simulate import simulate
from tasks.curate import is_held_out
from tasks.policies import FallbackChain, Rung
from tasks.specs import SimulateSpec
from tasks.storage.examples import examples, load_messages
from tasks.storage.store import open_store

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_home", "home")]
CAST = ("manager", "developer", "client", "hr", "qa", "intern", "employee")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "calls"
    log.touch()
    monkeypatch.setenv("SCRIPTED_CALLS", str(log))
    return lambda: log.read_text().split()


def spec(total: int = 40, writer: str = "scripted/write", **changes) -> SimulateSpec:
    fields = {"name": "x", "total": total, "writers": FallbackChain.of([writer]), "base_model": writer}
    return SimulateSpec(**{**fields, **changes})


def run(asked: SimulateSpec):
    return asyncio.run(simulate(asked))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_delivers_the_plan_exactly_and_repeating_it_costs_nothing(calls) -> None:
    first = run(spec(total=120, plan="full-2500"))
    paths = (first.examples, first.conversations, first.metadata)
    before = [path.read_bytes() for path in paths]
    made = calls()
    assert (first.requested, first.delivered, first.missing, first.failed) == (120, 120, 0, 0)
    assert all(cell.delivered == cell.requested for cell in first.cells)
    assert sum(cell.delivered for cell in first.cells if cell.length == "short") == 60
    assert len(set(made)) == len(made)

    assert run(spec(total=120, plan="full-2500")) == first
    assert calls() == made
    assert [path.read_bytes() for path in paths] == before


def test_every_conversation_lies_in_its_band_and_everybody_speaks() -> None:
    bands = load_kinds().bands
    found = lines(run(spec()).conversations)
    assert len({one["id"] for one in found}) == 40
    for one in found:
        band = bands[one["length"]]
        assert band.exchanges[0] <= one["exchanges"] == len(one["turns"]) <= band.exchanges[1]
        assert band.tokens[0] <= one["tokens"] <= band.tokens[1]
        speakers = [turn["speaker"] for turn in one["turns"]]
        assert set(speakers) == {person["name"] for person in one["participants"]}
        assert all(before != after for before, after in pairwise(speakers))


def test_every_view_ends_with_its_persona_and_stays_with_its_conversation() -> None:
    report = run(spec())
    rows = {row.id: row for persona in CAST for row in examples(open_store(), persona)}
    views = lines(report.examples)
    assert len(views) == len(rows) == report.views
    for one in lines(report.conversations):
        linked = [rows[example["id"]] for example in one["examples"]]
        assert {row.origin for row in linked} == {one["id"]}
        assert len({is_held_out(row.origin) for row in linked}) == 1
        assert [row.persona for row in linked] == [person["persona"] for person in one["participants"]]
        for example, row, person in zip(one["examples"], linked, one["participants"], strict=True):
            messages = views[example["line"]]["messages"]
            assert messages[1:] == [m.model_dump() for m in load_messages(row.messages)]
            roles = [message["role"] for message in messages]
            assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)]
            own = [turn["text"] for turn in one["turns"] if turn["speaker"] == person["name"]]
            assert [message["content"] for message in messages if message["role"] == "assistant"] == own


def test_others_are_user_turns_with_their_names() -> None:
    found = lines((report := run(spec())).conversations)
    views = lines(report.examples)
    one = next(one for one in found if one["exchanges"] == 4 and len(one["participants"]) == 2)
    second = views[one["examples"][1]["line"]]["messages"]
    opener = one["participants"][0]
    assert second[1]["content"] == f"{opener['name']} ({opener['role']}): {one['turns'][0]['text']}"


def test_what_is_dropped_is_replaced_by_another_scene() -> None:
    report = run(spec(writer="scripted/picky", total=60))
    assert report.dropped > 0
    assert report.delivered + report.missing == 60
    assert report.missing <= 2
    found = lines(report.conversations)
    assert Counter(one["length"] for one in found)["short"] >= 40
    assert not [one for one in found if "bank" in one["project"] or "museum" in one["project"]]
    metadata = json.loads(report.metadata.read_text())
    assert len(metadata["failures"]) == report.dropped
    assert all("declines" in failure["reasons"][0] for failure in metadata["failures"])


def test_what_cannot_be_delivered_is_reported_as_missing(calls) -> None:
    report = run(spec(writer="scripted/brief", total=2))
    assert (report.delivered, report.missing, report.dropped) == (0, 2, 8)
    assert [cell.delivered for cell in report.cells if cell.requested] == [0, 0]
    assert report.examples.read_text() == ""
    failure = json.loads(report.metadata.read_text())["failures"][0]
    assert any("fewer than" in reason for reason in failure["reasons"])
    made = calls()
    assert run(spec(writer="scripted/brief", total=2)) == report
    assert calls() == made


def test_when_no_model_answers_the_conversations_are_failed_and_tried_again_later() -> None:
    chain = FallbackChain(rungs=(Rung(model="scripted/missing", attempts=1),))
    report = run(spec(total=3, writers=chain))
    assert (report.delivered, report.missing, report.failed) == (0, 3, 3)
    failures = json.loads(report.metadata.read_text())["failures"]
    assert all("scripted/missing" in reason for failure in failures for reason in failure["reasons"])
    assert run(spec(total=3)).delivered == 3


def test_a_timeout_is_tried_again_without_repeating_finished_turns(calls) -> None:
    chain = FallbackChain(rungs=(Rung(model="scripted/flaky-5", attempts=3, delays=(0.1,)),))
    report = run(spec(total=4, name="flaky", writers=chain, base_model="scripted/flaky-0"))
    assert report.delivered == 4
    assert len(calls()) == len(set(calls()))


def test_a_name_that_was_asked_for_differently_is_refused() -> None:
    run(spec(total=2))
    with pytest.raises(Conflict, match="total 2 → 3"):
        run(spec(total=3))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"plan": "nobody"}, NotFound),
        ({"base_model": "smollm2"}, InputError),
        ({"base_model": "scripted/missing"}, ModelUnavailable),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_written(changes, error, calls) -> None:
    with pytest.raises(error):
        run(spec(**changes))
    assert calls() == []


def test_the_metadata_has_tokens_and_the_cost_of_training() -> None:
    report = run(spec(total=10))
    metadata = json.loads(report.metadata.read_text())
    assert metadata["counts"]["delivered"] == 10
    assert metadata["tokens"]["conversations"] == sum(one["tokens"] for one in lines(report.conversations))
    assert metadata["tokens"]["examples"] > metadata["tokens"]["conversations"]
    cost = metadata["training_cost_usd"]
    assert cost["estimate"]["low"] <= cost["estimate"]["high"]
    references = [(size["tokens"], size["low"], size["high"]) for size in cost["references"]]
    assert references == [(2_000_000, 80, 120), (800_000, 30, 50)]
    assert sum(row["written"] for row in metadata["totals"]) == 2000
