"""A Prefect server and a worker of one's own, as processes that can be killed and started again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect_process import answers, free_port

ROOT = Path(__file__).parent.parent.parent
PLUGINS = Path(__file__).parent
# As `make server` starts it: leases that survive a kill, and records written in batches.
SERVER = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
# Everything waits less, so that a test does.
IMPATIENT = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
}


class Services:
    """A folder with a home, a Prefect server and a worker; every process is ended by its pid."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT", "UNDERSTUDY"))
        }
        self.environment = {
            **inherited,
            **SERVER,
            **IMPATIENT,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "UNDERSTUDY_HOME": str(self.home),
            "PYTHONPATH": str(PLUGINS),
            "OMP_WAIT_POLICY": "PASSIVE",
            **environment,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start `python -m command`, with what it says appended to a log of that name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.processes[name] = process
        return process

    def start_server(self) -> None:
        self.start("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self.wait(lambda: answers(f"{self.url}/health"), 120, "the Prefect server")

    def start_worker(self) -> None:
        self.start("worker", "prefect", "worker", "start", "--pool", "understudy")

    def kill(self, name: str) -> None:
        """Kill -9 a process, and nothing but it."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text()[-6000:] if path.exists() else ""

    def understudy(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def wait(self, ready: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait until something is so; with every log when it never is."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"── {path.name}\n{self.log(path.stem)}" for path in self.folder.glob("*.log")
                )
                raise AssertionError(f"Never seen: {what}.\n{logs}")
            time.sleep(0.2)
        return found

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return rows of the home's SQLite database; none while it has no such table."""
        database = self.home / "understudy.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    def count(self, table: str) -> int:
        found = self.rows(f"SELECT count(*) FROM {table}")
        return int(found[0][0]) if found else 0

    def post(self, path: str, body: object) -> Any:
        """Ask the Prefect server; again while its SQLite is busy (503), as Prefect's own client does."""
        for _ in range(10):
            answer = httpx.post(f"{self.url}{path}", json=body, timeout=90)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json()

    def flow_runs(self, flow: str, *, state: str | None = None, begun: bool = False) -> list[dict[str, Any]]:
        """Return the runs of a flow, oldest first: in a state, or all, or all that ever began."""
        asked = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC", "limit": 200}
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", asked)
        return [
            run
            for run in found
            if (state is None or run["state_name"] == state) and (not begun or run["start_time"])
        ]

    def begin(self, deployment: str, state: str = "SCHEDULED", **parameters: Any) -> str:
        """Have the worker run a deployment; return the run's id. A PENDING one is taken by nobody."""
        found = self.post("/deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
        path = f"/deployments/{found[0]['id']}/create_flow_run"
        created = self.post(path, {"parameters": parameters, "state": {"type": state}})
        return str(created["id"])

    def run(self, deployment: str, **parameters: Any) -> None:
        """Have the worker run a deployment to its end; again where it gave way to its own schedule."""
        created = self.begin(deployment, **parameters)

        def ended() -> bool:
            nonlocal created
            runs = self.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [created]}}})
            state: str = runs[0]["state_type"]
            assert state not in ("FAILED", "CRASHED"), self.log("worker")
            if state == "CANCELLED":
                created = self.begin(deployment, **parameters)
            return state == "COMPLETED"

        self.wait(ended, 240, f"the end of {deployment}")


@contextmanager
def services(folder: Path, **environment: str) -> Iterator[Services]:
    """Have a server, everything deployed, and a worker for as long as the block runs."""
    found = Services(folder, **environment)
    try:
        found.start_server()
        found.understudy("deploy")
        found.start_worker()
        yield found
    finally:
        found.stop()
