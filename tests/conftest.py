"""What the tests share: a home of their own, a third party's plugin, one Prefect server."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

PLUGINS = Path(__file__).parent / "plugins"
sys.path.insert(0, str(PLUGINS))
for name in [name for name in os.environ if name.startswith(("PREFECT_", "UNDERSTUDY_"))]:
    del os.environ[name]
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
pytest_plugins = ["postgresql", "databases", "remotes"]
settings.register_profile("no deadline", deadline=None)  # no test here asserts a time
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick tests first and whatever starts a Prefect server after them.

    Threads of Prefect's clients draw from the global random state; hypothesis takes that for the test's own.
    """
    items.sort(key=lambda item: [bool(item.get_closest_marker(name)) for name in ("slow", "prefect")])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a home folder of its own; settings read it from the environment."""
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the embedded model once for all tests."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have one embedded Prefect server for all tests that run flows in this process."""
    from deployments.launch import drain, prefect_server
    from tasks.storage.settings import Settings

    with prefect_server(Settings(home=tmp_path_factory.mktemp("prefect"))):
        yield
        asyncio.run(drain())  # what is told to a server that has gone keeps the process for a minute
