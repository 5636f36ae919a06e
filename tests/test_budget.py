"""What a run costs: estimated before, bounded while it runs, continued with more."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import Remote, openai_server
from typer.testing import CliRunner

from agents.errors import InputError
from deployments.cli.commands import app
from flows.generate import generate
from tasks.estimate import estimate_run
from tasks.policies import FallbackChain
from tasks.specs import GenerateSpec
from tasks.storage.drafts import spent_on
from tasks.storage.store import open_store

TEACHER = "openai/teacher"
GIVEN = ["generate", "collaborative", "--name", "x", "--count", "6", "--model", TEACHER]


@pytest.fixture(scope="module")
def running() -> Iterator[Remote]:
    with openai_server() as server:
        yield server


@pytest.fixture
def server(running: Remote, home: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    running.set()
    monkeypatch.setenv("OPENAI_BASE_URL", running.base)
    monkeypatch.setenv("UNDERSTUDY_PRICES", f"{TEACHER}=1000/2000")
    return running


def spec(**changes) -> GenerateSpec:
    chain = FallbackChain.of([TEACHER])
    fields = {"name": "x", "persona": "collaborative", "count": 6, "document_words": 200}
    return GenerateSpec(**fields, writers=chain, actors=chain, **changes)


def run(asked: GenerateSpec):
    return asyncio.run(generate(asked))


def test_without_history_the_words_are_counted(server: Remote) -> None:
    estimate = estimate_run(open_store(), spec())
    assert [(stage.calls, stage.basis) for stage in estimate.stages] == [(6, "words")] * 3
    tokens = sum(1000 * stage.prompt_tokens + 2000 * stage.completion_tokens for stage in estimate.stages)
    assert estimate.cost == pytest.approx(tokens / 1e6)
    assert server.counts()["calls"] == 0


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_home")
def test_a_budget_stops_the_run_and_a_larger_one_continues_it(server: Remote) -> None:
    whole = estimate_run(open_store(), spec())
    assert whole.cost is not None
    stopped = run(spec(budget=whole.cost / 2))
    assert "budget" in stopped.stopped
    assert stopped.accepted < 6
    assert stopped.cost is not None
    assert 0 < stopped.cost <= whole.cost / 2
    made = server.counts()["calls"]

    finished = run(spec(budget=whole.cost * 10))
    assert (finished.accepted, finished.stopped) == (6, "")
    assert server.counts()["calls"] == 18 > made
    assert server.counts()["repeated"] == 0, "nothing is paid twice"
    assert finished.cost == pytest.approx(spent_on(open_store(), "x"))

    again = estimate_run(open_store(), spec().model_copy(update={"name": "y"}))
    assert {stage.basis for stage in again.stages} == {"history"}
    assert again.cost == pytest.approx(finished.cost, rel=0.05)
    assert estimate_run(open_store(), spec()).cost == 0.0


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_home")
def test_a_budget_without_a_price_is_refused_before_anything_is_asked(
    server: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpriced = spec(budget=1.0).model_copy(update={"actors": FallbackChain.of(["scripted/write"])})
    with pytest.raises(InputError, match="UNDERSTUDY_PRICES=scripted/write="):
        run(unpriced)
    monkeypatch.setenv("UNDERSTUDY_RUNNER", "dask")
    with pytest.raises(InputError, match="dask"):
        run(spec(budget=1.0))
    assert server.counts()["calls"] == 0


@pytest.mark.usefixtures("server")
def test_the_command_shows_the_estimate_and_refuses_a_budget_that_will_not_do() -> None:
    shown = CliRunner().invoke(app, [*GIVEN, "--estimate"])
    assert shown.exit_code == 0
    assert "USD" in shown.stdout
    assert "words" in shown.stdout
    refused = CliRunner().invoke(app, [*GIVEN, "--budget", "0.001"])
    assert isinstance(refused.exception, InputError)
    assert "--yes" in refused.exception.remedy
