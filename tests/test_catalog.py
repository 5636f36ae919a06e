"""The catalogue read from the registry: every name, and an alias that follows a promotion at once."""

from pathlib import Path

import pytest

from agents.errors import AdapterInvalid, NotFound
from agents.personas import load_persona
from deployments.catalog import StoreCatalog
from tasks.models import adapter_folder
from tasks.storage import stage
from tasks.storage.settings import Settings
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Dataset, Evaluation, Job, Promotion, Version


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(Settings(home=tmp_path))


def add_version(store: Store, number: str, *, adapter: str | None = "adapter") -> str:
    job_id, evaluation_id, name = f"job-{number}", f"evaluation-{number}", f"jamie-{number}"
    cast = load_persona("jamie").model_dump_json()
    store.add_new(
        Dataset(id="d", persona="jamie", design="x", cast=cast, train_file="", held_out_file="", counts="{}")
    )
    store.add_new(
        Job(
            id=job_id,
            persona="jamie",
            backend="local",
            base_model="local/smollm2-135m",
            dataset_id="d",
            hyperparameters="{}",
            status="completed",
            adapter=adapter,
        )
    )
    store.add_new(Evaluation(id=evaluation_id, persona="jamie", job_id=job_id, spec="{}", report="{}"))
    store.add_new(
        Version(
            name=name,
            persona="jamie",
            number=number,
            change="first",
            job_id=job_id,
            evaluation_id=evaluation_id,
            base_model="local/smollm2-135m",
            dataset_id="d",
            design="x",
        )
    )
    return name


def promote(store: Store, number: str, verdict: str) -> None:
    stage.decide(
        store,
        Promotion(
            evaluation_id=f"evaluation-{number}",
            persona="jamie",
            version=f"jamie-{number}",
            verdict=verdict,
            decision="{}",
            state="promoted" if verdict == "pass" else "refused",
            baseline=stage.live_versions(store).get("jamie"),
        ),
    )


def test_without_versions_every_persona_is_played_by_its_base_model(store: Store) -> None:
    catalog = StoreCatalog(store)
    assert [served.id for served in catalog.models()][:1] == ["smollm2-135m"]
    assert catalog.resolve("jamie").address == "local/smollm2-135m"
    assert "no version is live" in catalog.resolve("jamie").description
    assert catalog.resolve("smollm2-135m").persona is None


def test_the_alias_follows_promotions_and_ignores_refusals(store: Store) -> None:
    catalog = StoreCatalog(store)
    for number in ("0.1.0", "0.2.0"):
        add_version(store, number)
    promote(store, "0.1.0", "pass")
    assert catalog.resolve("jamie").address == "local/smollm2-135m@job-0.1.0"
    promote(store, "0.2.0", "inconclusive")
    assert catalog.resolve("jamie").address == "local/smollm2-135m@job-0.1.0"
    assert catalog.resolve("jamie-0.2.0").address == "local/smollm2-135m@job-0.2.0"
    assert catalog.resolve("jamie-0.2.0").persona is not None
    assert catalog.resolve("jamie-0.2.0").created > 1_700_000_000


def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(store: Store) -> None:
    with pytest.raises(NotFound, match=r"'nobody'.*jamie"):
        StoreCatalog(store).resolve("nobody")


def test_adapters_are_found_by_job_and_by_version(store: Store) -> None:
    name = add_version(store, "0.1.0")
    assert adapter_folder(store, name) == adapter_folder(store, "job-0.1.0") == store.object_path("adapter")
    with pytest.raises(NotFound, match="jamie-9"):
        adapter_folder(store, "jamie-9")


def test_a_job_without_an_adapter_says_so(store: Store) -> None:
    add_version(store, "0.3.0", adapter=None)
    with pytest.raises(AdapterInvalid, match=r"job-0\.3\.0"):
        adapter_folder(store, "jamie-0.3.0")
