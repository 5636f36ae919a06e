"""Exports: files that follow from the rows however many there are, whole or not at all."""

import json
from pathlib import Path

import pytest

from agents.errors import NotFound, StorageError
from tasks.card import find_card, write_dataset_card
from tasks.card_text import card_text
from tasks.cast import find_persona
from tasks.curate import snapshot_dataset
from tasks.export import export_run
from tasks.generate import STAGES
from tasks.specs import GenerateSpec
from tasks.storage.drafts import PAGE, claim_run
from tasks.storage.examples import examples, get_dataset
from tasks.storage.objects import whole_file
from tasks.storage.rounds import begin_round
from tasks.storage.store import open_store
from tasks.storage.tables import Draft
from tasks.tally import Spread, kind_of, spread

COUNT = 2 * PAGE + 7
DROPPED = PAGE + 3
FAILED = 11
SPEC = GenerateSpec(name="big", persona="collaborative", count=COUNT)


@pytest.fixture
def run(home: Path) -> GenerateSpec:
    """Have a run of more than two pages, with one draft dropped and one failed."""
    store = open_store()
    claim_run(store, SPEC.name, SPEC.persona, SPEC.model_dump_json())
    store.add_values(Draft, [row(stage, at) for at in range(COUNT) for stage in STAGES if there(stage, at)])
    return SPEC


def there(stage: str, position: int) -> bool:
    return stage == "idea" or (position != DROPPED and (position != FAILED or stage == "document"))


def row(stage: str, position: int) -> dict[str, object]:
    status = {("idea", DROPPED): "dropped", ("document", FAILED): "failed"}.get((stage, position), "accepted")
    return {
        "run": SPEC.name,
        "stage": stage,
        "position": position,
        "status": status,
        "text": f"Subject: {stage} {position}\nThe roof “leaks”.",
        "model": "scripted/write",
        "attempts": 0 if status == "failed" else 3 if status == "dropped" else 1,
        "reasons": '["ask 1: it has 3 words, fewer than 15, so write more"]' if status == "dropped" else "[]",
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "cost": 0.25,
        "seconds": 0.5,
        "created_at": f"2026-01-01T00:00:00.{position:06}",
    }


def test_an_export_of_many_pages_has_every_example_once_and_its_sums(run: GenerateSpec) -> None:
    report = export_run.fn(run)
    assert (report.accepted, report.dropped, report.failed, report.refused) == (COUNT - 2, 1, 1, 3)
    lines = [json.loads(line) for line in report.examples.read_text().splitlines()]
    details = json.loads(report.detailed.read_text())
    metadata = json.loads(report.metadata.read_text())
    positions = [at for at in range(COUNT) if at not in (DROPPED, FAILED)]
    assert [line["messages"][1]["content"].split()[2] for line in lines] == [str(at) for at in positions]
    assert [detail["messages"] for detail in details] == [line["messages"] for line in lines]
    assert [detail["title"] for detail in details] == [f"document {at}" for at in positions]
    assert len({row.origin for row in examples(open_store(), "collaborative")}) == COUNT - 2
    assert [failure["position"] for failure in metadata["failures"]] == [FAILED, DROPPED]
    answered = 3 * (COUNT - 2) + 2
    assert metadata["tokens"] == {"prompt": 2 * answered, "completion": 3 * answered}
    assert metadata["cost"] == pytest.approx(0.25 * answered)
    assert metadata["durations"]["finished_at"] == f"2026-01-01T00:00:00.{COUNT - 1:06}"


def test_exporting_twice_gives_the_same_bytes(run: GenerateSpec) -> None:
    first = export_run.fn(run)
    paths = (first.examples, first.detailed, first.metadata)
    before = [path.read_bytes() for path in paths]
    assert export_run.fn(run) == first
    assert [path.read_bytes() for path in paths] == before


def test_an_export_that_cannot_be_written_leaves_every_file_as_it_was(run: GenerateSpec) -> None:
    report = export_run.fn(run)
    report.examples.write_text("before")
    report.detailed.unlink()
    report.detailed.mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        export_run.fn(run)
    report.detailed.rmdir()
    assert [path.name for path in report.examples.parent.iterdir() if path.name.startswith(".")] == []
    assert export_run.fn(run) == report
    assert len(report.examples.read_text().splitlines()) == COUNT - 2


def test_a_run_of_nothing_gives_empty_files(home: Path) -> None:
    claim_run(open_store(), SPEC.name, SPEC.persona, SPEC.model_dump_json())
    report = export_run.fn(SPEC)
    assert report.examples.read_text() == ""
    assert (
        json.loads(report.detailed.read_text()) == json.loads(report.metadata.read_text())["failures"] == []
    )


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with whole_file(path) as file:
        file.write("whole")
    with pytest.raises(OverflowError), whole_file(path) as file:
        file.write("half" * int(1e309))
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_lengths_are_spread_and_reasons_are_of_a_kind() -> None:
    from collections import Counter

    assert spread(Counter([5, 1, 9, 7])) == Spread(least=1, median=5, most=9)
    assert spread(Counter()) == Spread(least=0, median=0, most=0)
    assert kind_of("ask 1: it nearly repeats an earlier idea: 'x'") == "near duplicate"
    assert kind_of("it leaves the placeholder '[Your Name]', so write") == "placeholder"
    assert kind_of("the tone is wrong") == "a rule of the persona"


def test_the_card_of_a_run_says_first_what_is_missing_and_agrees_with_the_command(run: GenerateSpec) -> None:
    report = export_run.fn(run)
    text = report.card.read_text()
    found = find_card(open_store(), SPEC.name)
    assert card_text(found) == text.rstrip("\n")
    headline = text.splitlines()[2]
    assert f"Only {COUNT - 2} of {COUNT}" in headline
    assert "1 dropped" in headline
    assert "1 failed" in headline
    assert found.reasons == {"too short or too long": 1, "no model answered": 1}
    assert sum(found.categories.values()) == sum(found.kinds.values()) == sum(found.split.values())
    assert found.words["document"].least == found.words["document"].most == 6
    assert found.models["scripted/write"].asks == 3 * (COUNT - 2) + 1 + 3
    assert len(found.samples) == 3


def test_a_name_that_is_neither_run_nor_dataset_is_refused(home: Path) -> None:
    with pytest.raises(NotFound, match="neither a run nor a dataset"):
        find_card(open_store(), "nothing")


def test_the_card_of_a_dataset_counts_its_files(run: GenerateSpec) -> None:
    export_run.fn(run)
    begin_round(open_store(), find_persona(open_store(), "collaborative"), "asked")
    dataset = snapshot_dataset.fn("collaborative", 1)
    text = write_dataset_card(dataset).read_text()
    found = find_card(open_store(), dataset)
    assert text.rstrip("\n") == card_text(found)
    counts = json.loads(get_dataset(open_store(), dataset).counts)
    assert found.accepted == counts["train"] + counts["held_out"]
    assert found.split["held out"] == counts["held_out"]
    assert found.models["scripted/write"].texts == 3 * (COUNT - 2) + 2
