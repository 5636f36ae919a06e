"""A house whose every part can be killed at a chosen moment: flow, worker, Prefect server, PostgreSQL.

    with crash_house(folder) as house, house.gate("jobs"):
        house.wait(lambda: house.is_held("jobs"), 60, "somebody who is about to write a job")
        house.kill_database()

A gate holds back whoever writes to a table, as a slow disk would, so that a kill hits the middle of a step
and never its end by luck.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from postgresql import PostgresServer, postgres_server
from services import Services

TRAINER = "tasks.training.lora"
# What makes the waiting in Prefect short; what is waited for stays the same.
QUICK = {
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "UNDERSTUDY_RETELL_SECONDS": "30",
}


class CrashHouse(Services):
    """Services whose tables and whose Prefect server's tables lie in a PostgreSQL of their own."""

    def __init__(self, folder: Path, postgresql: PostgresServer) -> None:
        self.postgresql = postgresql
        self.tables = postgresql.new_database()
        self.prefects = postgresql.new_database(driver="asyncpg")
        super().__init__(
            folder,
            PREFECT_API_DATABASE_CONNECTION_URL=self.prefects,
            UNDERSTUDY_DATABASE_URL=self.tables,
            SCRIPTED_CALLS=str(folder / "calls"),
            **QUICK,
        )
        self.gates: dict[str, psycopg.Connection[Any]] = {}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return rows of the tables; none while there is no such table."""
        try:
            return self.postgresql.query(self.tables, query)
        except psycopg.errors.UndefinedTable:
            return []

    def one(self, query: str) -> Any:
        """Return the first value of a query, or None."""
        found = self.rows(query)
        return found[0][0] if found else None

    def post(self, path: str, body: object) -> Any:
        """Ask the Prefect server, again while it or its database is not there."""
        for _ in range(30):
            with suppress(httpx.HTTPStatusError, httpx.TransportError):
                return super().post(path, body)
            time.sleep(1)
        return super().post(path, body)

    def hasten(self, automation: str, seconds: float) -> None:
        """Have an automation that waits for something to fail to happen wait for less."""
        (found,) = [one for one in self.post("/automations/filter", {}) if one["name"].endswith(automation)]
        changed = {**found, "trigger": {**found["trigger"], "within": seconds}}
        for given in ("id", "created", "updated"):
            changed.pop(given)
        httpx.put(f"{self.url}/automations/{found['id']}", json=changed, timeout=30).raise_for_status()

    def taken_slots(self) -> dict[str, int]:
        """Return how many slots are taken of each deployment's concurrency limit that has some."""
        found = self.post("/v2/concurrency_limits/filter", {})
        return {limit["name"]: limit["active_slots"] for limit in found if limit["active_slots"]}

    def calls(self) -> list[str]:
        """Return the key of every call that the scripted model was asked, in order."""
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    def news(self, about: str) -> list[str]:
        """Return the events of ours that Prefect has heard about a thing, oldest first."""
        heard = f"SELECT event FROM events WHERE resource_id LIKE 'understudy.%{about}%' ORDER BY occurred"
        return [event for (event,) in self.postgresql.query(self.prefects, heard)]

    def close_gate(self, table: str) -> None:
        """Hold back whoever writes to a table from now on; reading goes on."""
        connection = psycopg.connect("postgresql" + self.tables[self.tables.index("://") :])
        connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
        self.gates[table] = connection

    def open_gate(self, table: str) -> None:
        connection = self.gates.pop(table, None)
        if connection is not None:
            with suppress(psycopg.Error):  # the database may be dead, and the lock with it
                connection.close()

    def is_held(self, table: str) -> bool:
        """Tell whether somebody waits at a gate."""
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            f" WHERE relation = '{table}'::regclass AND NOT granted AND datname = current_database()"
        )
        return bool(self.rows(waiting)[0][0])

    def kill_flow(self, run: str) -> bool:
        """Kill -9 the processes of a flow run; tell whether there was one."""
        found = [process for process, told in self._ours() if told.get("PREFECT__FLOW_RUN_ID") == run]
        return kill_all([process for process in found if not is_trainer(process)])

    def kill_trainers(self) -> bool:
        """Kill -9 whoever trains; tell whether somebody did."""
        return kill_all([process for process, _ in self._ours() if is_trainer(process)])

    def hold_trainers(self, *, still: bool) -> None:
        """Have whoever trains stand still, or go on."""
        for process in [process for process, _ in self._ours() if is_trainer(process)]:
            with suppress(psutil.NoSuchProcess):
                process.suspend() if still else process.resume()

    def kill_worker(self) -> None:
        """Kill -9 the worker, and nothing that it started."""
        self.kill("worker")

    def kill_server(self) -> None:
        """Kill -9 the Prefect server with every process of it."""
        process = self.processes.pop("server")
        server = psutil.Process(process.pid)
        kill_all([server, *server.children(recursive=True)])
        process.wait()

    def kill_database(self) -> None:
        """Kill -9 PostgreSQL with every process of it, and so every gate."""
        self.postgresql.kill()
        for table in list(self.gates):
            self.open_gate(table)

    def stop(self) -> None:
        """End everything, then whatever a kill left without a parent."""
        super().stop()
        for table in list(self.gates):
            self.open_gate(table)
        kill_all([process for process, _ in self._ours()])

    def _ours(self) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """Yield the processes of this home with their environments; this one is none of them."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                told = process.environ()
                if process.pid != os.getpid() and told.get("UNDERSTUDY_HOME") == str(self.home):
                    yield process, told


def is_trainer(process: psutil.Process) -> bool:
    try:
        return TRAINER in process.cmdline()
    except psutil.Error:
        return False


def kill_all(processes: list[psutil.Process]) -> bool:
    """Kill -9 processes and wait until they are gone; tell whether there were any."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)
    return bool(processes)


@contextmanager
def crash_house(folder: Path) -> Iterator[CrashHouse]:
    """Have PostgreSQL, a Prefect server on it, everything deployed, and a worker."""
    with postgres_server() as postgresql:
        house = CrashHouse(folder, postgresql)
        try:
            house.start_server()
            house.understudy("deploy")
            house.hasten("crashed run → again", 12)
            house.start_worker()
            yield house
        finally:
            house.stop()
