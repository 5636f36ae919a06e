"""Fixtures: a stand-in of a provider for the tests of a module, behaving well at the start of each."""

from collections.abc import Iterator

import pytest
from openai_server import Remote, openai_server


@pytest.fixture(scope="module")
def running() -> Iterator[Remote]:
    with openai_server() as server:
        yield server


@pytest.fixture
def server(running: Remote) -> Remote:
    running.set()
    return running
