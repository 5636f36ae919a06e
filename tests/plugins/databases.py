"""A store on each database that the product runs on, for tests that hold on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.storage.settings import Settings
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Dataset, Evaluation, Job, Version

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Name a new database of each kind in turn."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    return Settings(home=tmp_path / "home", database_url=url)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """Open the database of `settings`."""
    found = open_store(settings)
    yield found
    found.engine.dispose()


@pytest.fixture(params=DATABASES)
def home_store(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """Open a new database of each kind in turn, named by the environment, so that other processes find it."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
        monkeypatch.setenv("UNDERSTUDY_DATABASE_URL", url)
    found = open_store()
    yield found
    found.engine.dispose()


@pytest.fixture
def job(store: Store) -> str:
    """Have a queued job on a dataset; return its id."""
    store.add_new(
        Dataset(id="d", persona="jamie", design="x", cast="{}", train_file="", held_out_file="", counts="{}")
    )
    fields = {"persona": "jamie", "backend": "local", "base_model": "local/m", "dataset_id": "d"}
    store.add_new(Job(id="job-1", hyperparameters="{}", status="queued", **fields))
    return "job-1"


@pytest.fixture
def version(store: Store, job: str) -> str:
    """Have an evaluation `e` of the job and the version that it would become; return the version's name."""
    store.add_new(Evaluation(id="e", persona="jamie", job_id=job, spec="{}", report="{}"))
    fields = {
        "persona": "jamie",
        "number": "0.1.0",
        "change": "first",
        "base_model": "local/m",
        "dataset_id": "d",
        "design": "x",
    }
    store.add_new(Version(name="jamie-0.1.0", job_id=job, evaluation_id="e", **fields))
    return "jamie-0.1.0"
