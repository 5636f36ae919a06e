"""A diff of versions that the loop itself made, on a checkpoint of a few thousand weights."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_checkpoint

from agents.errors import DatasetInvalid, InputError, NotFound
from flows.diff import diff
from flows.differences import diff_text
from flows.pipeline import PipelineReport, pipeline
from tasks.comparison.examples import content_key
from tasks.comparison.report import VersionDiff
from tasks.evaluation.prompts import read_held_out
from tasks.sources.files import read_conversations
from tasks.specs import DiffSpec, PipelineSpec
from tasks.storage import registry
from tasks.storage.calls import call_totals
from tasks.storage.examples import get_dataset
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Version

pytestmark = [pytest.mark.prefect, pytest.mark.model, pytest.mark.slow]
THINGS = ["tap", "lift", "lamp", "lock", "door", "bell", "oven", "sink", "fan", "roof"]
PERSONA = """\
name: {name}
display_name: Keeper
description: Looks after a house.
agent_type: property_manager
system_prompt: You are Keeper. {prompt}
traits:
  - {{name: Kind, description: answers warmly}}
validation:
  - {{rule: length, min_characters: 20, max_characters: {longest}}}
base_model: local/{base}
data: {{source: conversations, conversations: {folder}/{name}.jsonl}}
sampling: {{serving_max_tokens: 12}}
"""


def write_conversations(path: Path, *, kinds: tuple[str, ...], count: int) -> None:
    lines = []
    for kind in kinds:
        for flat in range(count):
            thing = f"{THINGS[flat % 10]} {flat * 7919 % 997}"
            messages = [
                {"role": "user", "content": f"{kind}: the {thing} of flat {flat} broke."},
                {"role": "assistant", "content": f"Sorry, flat {flat}! I mend the {thing}."},
            ]
            lines.append(json.dumps({"category": kind, "messages": messages}))
    path.write_text("\n".join(lines))


def play(folder: Path, name: str, *, prompt: str, longest: int, epochs: int) -> PipelineReport:
    """Run the whole loop for a persona as it is now."""
    file = folder / f"{name}.yaml"
    given = {"name": name, "prompt": prompt, "longest": longest, "folder": folder, "base": folder / "tiny"}
    file.write_text(PERSONA.format(**given))
    settings = {"epochs": epochs, "rank": 2, "alpha": 4}
    return asyncio.run(pipeline(PipelineSpec(persona=str(file), finetune=settings)))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, prefect_home: None) -> Iterator[dict[str, str]]:
    """Make two versions of a keeper and one of a porter; return the names of all three."""
    folder = tmp_path_factory.mktemp("house")
    write_tiny_checkpoint(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_HOME", str(folder / "home"))
        write_conversations(folder / "keeper.jsonl", kinds=("heat", "water"), count=12)
        first = play(folder, "keeper", prompt="You answer.", longest=500, epochs=1)
        write_conversations(folder / "keeper.jsonl", kinds=("heat", "water", "noise"), count=12)
        second = play(folder, "keeper", prompt="You answer at once.", longest=300, epochs=2)
        write_conversations(folder / "porter.jsonl", kinds=("post",), count=12)
        other = play(folder, "porter", prompt="You carry.", longest=500, epochs=1)
        reports = {"first": first, "second": second, "other": other}
        yield {which: report.promotion.version for which, report in reports.items()}


@pytest.fixture
def store(played: dict[str, str]) -> Store:
    return open_store()


def compare(version: str, other: str | None = None, **changes: int) -> VersionDiff:
    return asyncio.run(diff(DiffSpec(version=version, other=other, **changes)))


def test_a_version_is_held_against_its_parent(played: dict[str, str], store: Store) -> None:
    found = compare(played["second"])
    assert (found.before.name, found.after.name) == (played["first"], played["second"])
    assert found.design_changed
    assert not found.base_model_changed
    assert found.step == "major"
    assert found.train.removed == found.held_out.removed == 0
    assert found.train.added + found.held_out.added == 12
    assert all(sample.category == "noise" for sample in found.train.added_samples)
    assert {c.category: c.train_before + c.held_out_before for c in found.categories} == {
        "heat": 12,
        "water": 12,
        "noise": 0,
    }
    assert {c.category: c.train_after + c.held_out_after for c in found.categories} == dict.fromkeys(
        ("heat", "water", "noise"), 12
    )
    assert "-You answer." in found.prompt
    assert "+You answer at once." in found.prompt
    assert [change.field for change in found.fields] == ["validation[length]"]
    assert [(c.field, c.before, c.after) for c in found.settings] == [("epochs", "1", "2")]
    assert found.scores.before is not None
    assert found.scores.after.report.persona == "keeper"


def test_the_five_questions_were_held_out_by_both_and_learned_by_neither(
    played: dict[str, str], store: Store
) -> None:
    found = compare(played["second"])
    assert found.questions is not None
    assert len(found.questions) == 5
    for name in (played["first"], played["second"]):
        dataset = get_dataset(store, registry.get_version(store, name).dataset_id)
        held_out = {item.question: item for item in read_held_out(store.object_path(dataset.held_out_file))}
        learned = {
            content_key(item.messages) for item in read_conversations(store.object_path(dataset.train_file))
        }
        for asked in found.questions:
            assert held_out[asked.question].reference == asked.reference
            assert content_key(held_out[asked.question].messages) not in learned
    assert {asked.category for asked in found.questions} == {"heat", "water"}


def test_what_an_evaluation_answered_is_replayed_and_the_answers_are_the_same_each_time(
    played: dict[str, str], store: Store
) -> None:
    before = call_totals(store).calls
    found = compare(played["second"])
    assert compare(played["first"], played["second"]) == found
    assert call_totals(store).calls == before
    version = registry.get_version(store, played["second"])
    answers = {
        match.question: match.candidate_answer for match in registry.matches(store, version.evaluation_id)
    }
    assert found.questions is not None
    assert all(answers[asked.question] == asked.after for asked in found.questions)


def test_a_first_version_is_held_against_its_base_model_and_all_of_it_is_new(
    played: dict[str, str], store: Store
) -> None:
    before = call_totals(store).calls
    found = compare(played["first"])
    assert found.step == "first"
    assert found.before.address == found.after.base_model
    assert found.train.before == found.train.removed == found.held_out.before == 0
    assert found.train.added == found.train.after
    assert found.prompt[1:] == ("+You are Keeper.", "+You answer.")
    assert found.scores.direct
    assert found.questions is not None
    assert len(found.questions) == 5
    assert call_totals(store).calls == before
    assert "Persona: new" in diff_text(found)


def test_no_question_is_asked_when_none_is_wanted(played: dict[str, str]) -> None:
    found = compare(played["second"], questions=0)
    assert found.questions is None
    assert "questions" not in diff_text(found)


def test_the_report_is_kept_as_an_artifact(played: dict[str, str]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    found = compare(played["second"])
    key = f"diff-{found.before.name}-{found.after.name}".replace(".", "-")

    async def kept() -> list[str]:
        async with get_client() as client:
            wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
            return [artifact.data for artifact in await client.read_artifacts(artifact_filter=wanted)]

    assert diff_text(found) in asyncio.run(kept())


def test_the_command_prints_it_for_people_and_for_scripts(played: dict[str, str]) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "deployments.cli", "diff", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout

    found = compare(played["second"], played["first"], questions=2)
    assert json.loads(run(played["second"], "--questions", "2", "--json")) == found.model_dump(mode="json")
    assert run(played["first"], played["second"], "--questions", "2") == diff_text(found) + "\n"


def test_bad_pairs_are_refused_with_names_and_remedy(played: dict[str, str]) -> None:
    with pytest.raises(NotFound, match=r"'keeper-9\.9\.9'.*keeper-0\.1\.0"):
        compare("keeper-9.9.9")
    with pytest.raises(NotFound, match="'keeper'"):
        compare(played["first"], "keeper")
    with pytest.raises(InputError, match=r"itself.*understudy versions keeper"):
        compare(played["first"], played["first"])
    with pytest.raises(InputError, match=r"keeper and porter.*understudy versions keeper"):
        compare(played["first"], played["other"])


def test_a_dataset_that_is_gone_is_named(played: dict[str, str], store: Store) -> None:
    version: Version = registry.get_version(store, played["other"])
    path = store.object_path(get_dataset(store, version.dataset_id).held_out_file)
    path.unlink()
    with pytest.raises(DatasetInvalid, match=str(path)):
        compare(version.name)
