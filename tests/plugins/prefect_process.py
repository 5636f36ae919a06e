"""A real Prefect server in a process of its own, on a free port of the loopback, ended by pid.

with prefect_process(folder, {"PREFECT_API_DATABASE_CONNECTION_URL": url}) as server:
    subprocess.run(command, env=server.environment)
    server.count("/task_runs/count")
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTUP_SECONDS = 120


@dataclass
class PrefectProcess:
    """A server: its API, and the environment in which a command uses it."""

    api: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what the server answers to a POST of JSON."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.api + path, json.dumps(body or {}).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  (our own server)
            return json.load(response)

    def count(self, path: str, body: Mapping[str, Any] | None = None) -> int:
        """Return a count, such as that of `/task_runs/count`."""
        return int(self.post(path, body))


def answers(url: str) -> bool:
    """Say whether a URL answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  (our own server)
            return bool(response.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prefect_process(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[PrefectProcess]:
    """Have a server whose files lie in the folder, with further PREFECT_ settings."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "prefect-server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment, **(settings or {})}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not answers(f"{api}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield PrefectProcess(api=api, environment=environment, process=process, log=log)
    finally:
        process.terminate()
        process.wait(timeout=60)
