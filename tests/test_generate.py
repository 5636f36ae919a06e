"""Generation: exact counts, nothing asked twice, files that follow from the rows, chains that fall back."""

import asyncio
import json
from pathlib import Path

import pytest

from agents.errors import Conflict, ModelUnavailable
from flows.generate import generate
from tasks.policies import FallbackChain, Rung
from tasks.specs import GenerateSpec
from tasks.storage.drafts import drafts
from tasks.storage.examples import examples
from tasks.storage.store import open_store

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_home", "home")]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "calls"
    log.touch()
    monkeypatch.setenv("SCRIPTED_CALLS", str(log))
    return lambda: log.read_text().split()


def spec(count: int = 30, **changes) -> GenerateSpec:
    chain = FallbackChain.of(["scripted/write"])
    fields = {"name": "x", "persona": "collaborative", "count": count, "document_words": 200}
    return GenerateSpec(**{**fields, "writers": chain, "actors": chain, **changes})


def run(asked: GenerateSpec):
    return asyncio.run(generate(asked))


def test_a_run_writes_what_was_asked_and_repeating_it_costs_nothing(calls) -> None:
    first = run(spec())
    paths = (first.examples, first.detailed, first.metadata)
    before = [path.read_bytes() for path in paths]
    made = calls()
    assert (first.accepted, first.dropped, first.failed) == (30, 0, 0)
    assert len(first.examples.read_text().splitlines()) == 30
    assert len(set(made)) == len(made) == 90

    assert run(spec()) == first
    assert calls() == made
    assert [path.read_bytes() for path in paths] == before


def test_every_line_is_a_conversation_that_ends_with_the_persona() -> None:
    report = run(spec(count=3))
    for line in report.examples.read_text().splitlines():
        assert [message["role"] for message in json.loads(line)["messages"]] == [
            "system",
            "user",
            "assistant",
        ]
    details = json.loads(report.detailed.read_text())
    assert {"document_id", "title", "category", "document_type", "words", "models", "cost"} <= set(details[0])
    assert len({detail["document_id"] for detail in details}) == 3
    metadata = json.loads(report.metadata.read_text())
    assert metadata["counts"]["accepted"] == 3
    assert metadata["parameters"]["persona"] == "collaborative"
    assert len(list(examples(open_store(), "collaborative"))) == 3


def test_categories_are_covered_evenly() -> None:
    details = json.loads(run(spec(count=40)).detailed.read_text())
    counts = {detail["category"]: 0 for detail in details}
    for detail in details:
        counts[detail["category"]] += 1
    assert len(counts) == 20
    assert set(counts.values()) == {2}
    assert len({detail["document_type"] for detail in details}) == 5


def test_a_name_that_was_asked_for_differently_is_refused(calls) -> None:
    run(spec(count=2))
    made = calls()
    with pytest.raises(Conflict, match="seed 0 → 7"):
        run(spec(count=2, seed=7))
    assert calls() == made


def test_the_chain_falls_back_and_prefect_shows_the_attempts() -> None:
    from prefect.client.orchestration import get_client

    chain = FallbackChain(
        rungs=(Rung(model="scripted/missing", attempts=1), Rung(model="scripted/write", attempts=1))
    )
    report = run(spec(name="falls-back", count=2, writers=chain))
    assert report.accepted == 2
    assert {row.model for row in drafts(open_store(), "falls-back", "idea").values()} == {"scripted/write"}

    async def attempts() -> list[tuple[str, int]]:
        from deployments.launch import drain

        await drain()
        async with get_client() as client:
            return [(found.name, found.run_count) for found in await client.read_task_runs()]

    assert ("idea[0:2]", 2) in asyncio.run(attempts())


def test_when_every_model_fails_the_examples_are_failed_with_the_reason_and_the_run_ends() -> None:
    chain = FallbackChain(rungs=(Rung(model="scripted/missing", attempts=1),))
    report = run(spec(count=3, actors=chain))
    assert (report.accepted, report.failed) == (0, 3)
    assert report.examples.read_text() == ""
    failures = json.loads(report.metadata.read_text())["failures"]
    assert {failure["stage"] for failure in failures} == {"response"}
    assert all("scripted/missing" in reason for failure in failures for reason in failure["reasons"])


def test_a_timeout_is_tried_again_and_finished_items_are_not(calls) -> None:
    chain = FallbackChain(rungs=(Rung(model="scripted/flaky-3", attempts=2, delays=(0.1,)),))
    report = run(spec(name="flaky", count=5, writers=chain))
    assert report.accepted == 5
    assert len(calls()) == len(set(calls())) == 15


def test_an_answer_that_is_refused_three_times_is_dropped_with_its_reasons(calls) -> None:
    chain = FallbackChain.of(["scripted/refuse"])
    report = run(spec(count=2, actors=chain))
    assert (report.accepted, report.dropped) == (0, 2)
    assert len(calls()) == 4 + 2 * 3
    failure = json.loads(report.metadata.read_text())["failures"][0]
    assert failure["status"] == "dropped"
    assert any("declines" in reason for reason in failure["reasons"])


def test_a_cut_answer_is_kept_up_to_its_last_whole_sentence_and_the_card_says_so() -> None:
    report = run(spec(count=2, actors=FallbackChain.of(["scripted/cut"])))
    assert report.accepted == 2
    lines = [json.loads(line) for line in report.examples.read_text().splitlines()]
    assert all(line["messages"][-1]["content"].endswith("?") for line in lines)
    assert "2 texts were cut" in report.card.read_text()


def test_a_cut_answer_without_whole_sentences_is_refused_with_the_reason() -> None:
    report = run(spec(count=2, actors=FallbackChain.of(["scripted/endless"])))
    assert (report.accepted, report.dropped, report.refused) == (0, 2, 6)
    failure = json.loads(report.metadata.read_text())["failures"][0]
    assert "cut at the token limit" in failure["reasons"][0]
    assert "cut at the token limit | 6" in report.card.read_text()


def test_a_judge_of_traits_refuses_what_lacks_one_and_its_verdicts_are_replayed(calls) -> None:
    asked = spec(count=20, trait_judge="scripted/traits")
    report = run(asked)
    assert report.accepted + report.dropped == 20
    assert report.refused > 0
    told = [
        reason for row in drafts(open_store(), "x", "response").values() for reason in json.loads(row.reasons)
    ]
    assert all("does not show the trait 'Encouraging' (it is grim)" in reason for reason in told)
    assert f"traits not shown | {len(told)} |" in report.card.read_text()
    made = calls()
    assert run(asked) == report
    assert calls() == made


def test_a_judge_that_gives_no_verdict_lets_nothing_through() -> None:
    report = run(spec(count=1, trait_judge="scripted/mute"))
    assert (report.accepted, report.dropped) == (0, 1)
    assert "no verdict" in report.metadata.read_text()


def test_a_judge_that_is_not_there_is_refused_before_anything_is_asked(calls) -> None:
    with pytest.raises(ModelUnavailable):
        run(spec(count=1, trait_judge="scripted/missing"))
    assert calls() == []
