"""The same flows, unchanged, on a Prefect server with a process worker."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "UNDERSTUDY_HOME": str(folder / "home"),
        "PYTHONPATH": str(Path(__file__).parent / "plugins"),
    }


def prefect(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def worker(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Start a server and a worker, and register prefect.yaml; end both by pid."""
    port = environment["PREFECT_API_URL"].split(":")[2].split("/", maxsplit=1)[0]
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", *arguments]
        with (folder / f"{arguments[0]}.log").open("wb") as log:
            started.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )

    try:
        start("server", "start", "--host", "127.0.0.1", "--port", port)
        deadline = time.monotonic() + 120
        while not answers(environment["PREFECT_API_URL"] + "/health"):
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.5)
        prefect(environment, "work-pool", "create", "understudy", "--type", "process", "--overwrite")
        prefect(environment, "deploy", "--all")
        start("worker", "start", "--pool", "understudy")
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  (our own server)
            return response.status == 200
    except OSError:
        return False


@pytest.mark.usefixtures("worker")
def test_every_deployment_is_registered_and_a_worker_runs_one(
    environment: dict[str, str], folder: Path
) -> None:
    listed = json.loads(prefect(environment, "deployment", "ls", "--output", "json"))
    names = {f"{row['flow_name']}/{row['name']}" if "flow_name" in row else row["name"] for row in listed}
    assert {name.split("/")[-1] for name in names} == {
        "generate",
        "simulate",
        "collect",
        "finetune",
        "watch",
        "evaluate",
        "promote",
        "pipeline",
    }
    chain = {"rungs": [{"model": "scripted/write"}]}
    asked = {"name": "served", "persona": "collaborative", "count": 3, "writers": chain, "actors": chain}
    prefect(
        environment,
        "deployment",
        "run",
        "generate/generate",
        "--params",
        json.dumps({"spec": asked}),
        "--watch",
    )
    with closing(sqlite3.connect(folder / "home" / "understudy.db")) as connection:
        assert connection.execute("SELECT count(*) FROM examples").fetchone() == (3,)
    assert (folder / "home" / "objects" / "runs" / "served" / "served.jsonl").exists()
