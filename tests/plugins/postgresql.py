"""A PostgreSQL server for tests: initialised in a temporary folder, on a free port of the loopback.

    with postgres_server() as server:
        url = server.new_database()
        server.kill()
        server.start()

It runs as an unprivileged user where the tests run as root, since PostgreSQL refuses root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

USER = "understudy"
PASSWORD = "a-secret-of-the-tests"
UNPRIVILEGED = ("postgres", "nobody")
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",  # what the operating system has survives every kill of the server
    "log_min_messages": "fatal",
}


class PostgresMissing(Exception):
    """The machine cannot run PostgreSQL; the message says why."""


def find_binaries() -> Path:
    """Return the folder of initdb and postgres; raise PostgresMissing when there is none."""
    for folder in _folders():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise PostgresMissing("PostgreSQL is not installed: no folder with initdb and postgres was found")


def _folders() -> Iterator[Path]:
    if shutil.which("pg_config"):
        told = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        yield Path(told.stdout.strip())
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        yield Path(found).parent


def run_as() -> dict[str, Any]:
    """Return how to start a process as somebody that PostgreSQL accepts."""
    if os.geteuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise PostgresMissing(f"PostgreSQL refuses root, and no user of {', '.join(UNPRIVILEGED)} exists")


@dataclass
class PostgresServer:
    """One server in a folder of its own; its port stays the same over restarts."""

    binaries: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=count)

    @classmethod
    def create(cls) -> PostgresServer:
        """Initialise a server in a new folder; raise PostgresMissing when the machine cannot run one."""
        binaries, runner = find_binaries(), run_as()
        folder = Path(tempfile.mkdtemp(prefix="understudy-pg-"))  # short: a socket's path has 107 characters
        secret = folder / "password"
        secret.write_text(PASSWORD)
        for path in (folder, secret):
            os.chown(path, runner.get("user", -1), runner.get("group", -1))
        command = [binaries / "initdb", "-D", folder / "data", "-U", USER, "-N", "-E", "UTF8", "--locale=C"]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **runner)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return cls(binaries=binaries, folder=folder, port=port)

    def start(self) -> None:
        """Start the server, again after a kill, and return when it answers."""
        options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = [self.binaries / "postgres", "-D", self.folder / "data", "-k", self.folder]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-p", str(self.port), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                **run_as(),
            )
        deadline = time.monotonic() + 60
        while True:
            with suppress(psycopg.OperationalError):
                return psycopg.connect(self.address("postgres")).close()
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill -9 the server and every process of it."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        everything = [server, *server.children(recursive=True)]
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=30)
        psutil.wait_procs(everything[1:], timeout=30)

    def stop(self) -> None:
        """Stop the server, waiting for nobody, and remove its folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(3)  # SIGQUIT: at once
            self.process.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, database: str, *, driver: str = "") -> str:
        """Return the URL of a database, for our tables and for Prefect with the driver that each uses."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self, *, driver: str = "psycopg") -> str:
        """Create an empty database and return its URL: `psycopg` for our tables, `asyncpg` for Prefect."""
        name = f"{driver}_{next(self.numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.address(name, driver=driver)

    def query(self, url: str, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query on a database of this server."""
        with psycopg.connect("postgresql" + url[url.index("://") :]) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Have a server of one's own; skip the test, saying why, where the machine cannot run one."""
    try:
        server = PostgresServer.create()
    except PostgresMissing as missing:
        pytest.skip(str(missing))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """Have one server for all tests that leave it running."""
    with postgres_server() as server:
        yield server
