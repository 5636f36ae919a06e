"""Fan-out by one setting: a cluster writes the same files as this process, and every task run is recorded."""

import asyncio
import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from postgresql import PostgresServer
from prefect_process import PrefectProcess, prefect_process

from agents.errors import AnswerRejected, InputError
from tasks.policies import PartialFailure
from tasks.storage.settings import Settings, read_settings

COUNT = 60
PACKAGES = {"dask": "prefect_dask", "ray": "prefect_ray"}
MISSING = {
    kind: pytest.mark.skipif(not find_spec(package), reason=f"{package} is not installed")
    for kind, package in PACKAGES.items()
}
CLUSTERS = [pytest.param(kind, marks=mark) for kind, mark in MISSING.items()]
CLUSTER_DONE = [pytest.param(kind, 4, marks=mark) for kind, mark in MISSING.items()]


def understudy(folder: Path, *models: str, count: int = COUNT, **environment: str) -> dict:
    """Generate in a home of its own; return the report."""
    folder.mkdir(exist_ok=True)
    command = ["generate", "collaborative", "--name", "x", "--count", str(count), "--json"]
    for model in models or ("scripted/write",):
        command += ["--model", model]
    plugins = Path(__file__).parent / "plugins"
    result = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *command],
        env={**os.environ, "UNDERSTUDY_HOME": str(folder), "PYTHONPATH": str(plugins), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout[result.stdout.index("{\n") :])


def completed_shards(server: PrefectProcess) -> dict[str, int]:
    """Return by stage how many shards the server has as completed."""
    done = {"type": {"any_": ["COMPLETED"]}}
    return {
        stage: server.count(
            "/task_runs/count", {"task_runs": {"name": {"like_": f"{stage}["}, "state": done}}
        )
        for stage in ("idea", "document", "response")
    }


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_cluster_writes_the_same_files(kind: str, server: PrefectProcess, tmp_path: Path) -> None:
    here = understudy(tmp_path / "here")
    before = completed_shards(server)
    there = understudy(tmp_path / kind, UNDERSTUDY_RUNNER=kind, **server.environment)
    shards = {stage: count - before[stage] for stage, count in completed_shards(server).items()}
    assert shards == {"idea": 3, "document": 3, "response": 3}
    assert Path(there["examples"]).read_bytes() == Path(here["examples"]).read_bytes()
    assert there["accepted"] == COUNT
    written = [json.loads(Path(report["detailed"]).read_text()) for report in (here, there)]
    for detail in (*written[0], *written[1]):
        del detail["created_at"]
    assert written[0] == written[1]


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_cluster_falls_back_and_gives_up_as_this_process_does(
    kind: str, tmp_path: Path, postgresql: PostgresServer
) -> None:
    """Embedded, on PostgreSQL: the workers use the server of the process that started them."""
    url = postgresql.new_database()
    settings = {"UNDERSTUDY_RUNNER": kind, "UNDERSTUDY_DATABASE_URL": url}
    report = understudy(tmp_path / "home", "scripted/missing", "scripted/write", count=30, **settings)
    assert (report["accepted"], report["failed"]) == (30, 0)
    assert postgresql.query(url, "SELECT count(*), count(DISTINCT key) FROM calls") == [(90, 90)]
    assert postgresql.query(url, "SELECT DISTINCT model FROM drafts") == [("scripted/write",)]


STORY = """\
import asyncio
from prefect import flow, task
from flows.fanout import fan_out, workers
from flows.reports import tracked
from tasks.policies import PartialFailure


@task
async def square(numbers, offset):
    if 13 in numbers:
        raise PartialFailure({13: "unlucky"}, total=len(numbers), model="m", final=True)
    return [number * number + offset for number in numbers]


@flow
async def story():
    given_up = []
    async with workers(), tracked("squares", 4) as progress:
        found = await fan_out(
            square,
            [[1, 2], [13], [3]],
            lambda part: {"numbers": part, "offset": 1},
            give_up=lambda failure: given_up.append(failure.failed),
        )
    return found, given_up, progress.done


def main():
    print(asyncio.run(story()))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with prefect_process(tmp_path_factory.mktemp("prefect")) as found:
        yield found


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.parametrize(("kind", "done"), [("local", 1), *CLUSTER_DONE])
def test_results_keep_their_order_and_failures_are_handed_over(
    kind: str, done: int, server: PrefectProcess, tmp_path: Path
) -> None:
    """Here the tasks themselves say what is done, and this one says nothing; on a cluster the shards do."""
    (tmp_path / "story.py").write_text(STORY)
    settings = {"UNDERSTUDY_RUNNER": kind, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    result = subprocess.run(
        [sys.executable, "-c", "from story import main; main()"],
        env={**server.environment, "PYTHONPATH": str(tmp_path), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"([[2, 5], None, [10]], [{{13: 'unlucky'}}], {done})"


def test_failures_survive_the_way_back_from_a_worker() -> None:
    failure = PartialFailure({3: "late", 5: "gone"}, total=25, model="a/b", final=True)
    again = pickle.loads(pickle.dumps(failure))  # noqa: S301
    assert (again.failed, again.total, again.model, again.final) == ({3: "late", 5: "gone"}, 25, "a/b", True)
    assert str(again) == str(failure)
    rejected = pickle.loads(pickle.dumps(AnswerRejected("no", ["short", "rude"])))  # noqa: S301
    assert (rejected.message, rejected.reasons) == ("no", ("short", "rude"))


@pytest.mark.parametrize("value", ["spark", "", "dask:", "local:here", "tcp://host:8786"])
def test_a_runner_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("UNDERSTUDY_RUNNER", value)
    with pytest.raises(InputError, match=r"UNDERSTUDY_RUNNER='.*local, dask or ray"):
        read_settings()


def test_a_runner_has_a_kind_and_an_address() -> None:
    assert Settings().fan_out == ("local", None)
    assert Settings(runner="dask").fan_out == ("dask", None)
    assert Settings(runner="dask:tcp://10.0.0.7:8786").fan_out == ("dask", "tcp://10.0.0.7:8786")
    assert Settings(runner="ray:ray://head:10001").fan_out == ("ray", "ray://head:10001")


@pytest.mark.parametrize("name", ["CONCURRENT_CALLS", "DATABASE_WAIT"])
def test_a_setting_that_cannot_be_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"UNDERSTUDY_{name}", "-3")
    with pytest.raises(InputError, match=f"UNDERSTUDY_{name}='-3'"):
        read_settings()


@pytest.mark.skipif(not find_spec("prefect_dask"), reason="prefect_dask is not installed")
def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.fanout import workers

    async def ask() -> None:
        async with workers():
            pass

    monkeypatch.setenv("UNDERSTUDY_RUNNER", "dask:tcp://127.0.0.1:9")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    with pytest.raises(InputError, match=r"tcp://127\.0\.0\.1:9"):
        asyncio.run(ask())
