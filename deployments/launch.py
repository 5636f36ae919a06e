"""Launch flows: against the Prefect server that PREFECT_API_URL names, or embedded with one of our own.

Does not know what the flows do. Embedded, the server's database lies in the home, so that a later
`prefect server start` with the same PREFECT_HOME shows every run.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from agents.errors import StorageError
from tasks.progress import Progress
from tasks.storage.settings import Settings, make_home

Result = TypeVar("Result")
COMMAND_TAG = "understudy-command"  # of runs that no deployment began: nobody starts them again
STARTUP_SECONDS = 120
DRAIN_SECONDS = 10.0
SETTLE_SECONDS = 1.2  # longer than the recorder's flush interval
UNFINISHED = {"task_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}
# Measured: with Prefect's defaults a run that ends at once loses most of its task-run records.
EMBEDDED = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_SECONDS),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    # Whole seconds: the recorder truncates, and with 0 it spins.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    # The console shows our own progress and errors; the logs of runs go to the server.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}


def run_flow(
    flow: Callable[..., Coroutine[Any, Any, Result]],
    *args: object,
    settings: Settings,
    listen: Callable[[Progress], None] | None = None,
) -> Result:
    """Run a flow to its end and return what it returned; its errors come through as they are."""
    with prefect_server(settings):
        from prefect import tags

        from flows.reports import listener

        listener.set(listen)
        with tags(COMMAND_TAG):
            return asyncio.run(_run(flow, *args))


async def _run(flow: Callable[..., Coroutine[Any, Any, Result]], *args: object) -> Result:
    try:
        return await flow(*args)
    finally:
        await drain()


def embed(settings: Settings) -> bool:
    """Set Prefect up to run embedded in the home, unless PREFECT_API_URL names a server; say which.

    Prefect reads its settings when it is imported, so this comes before any flow is.
    """
    if os.environ.get("PREFECT_API_URL"):
        return False
    os.environ.setdefault("PREFECT_HOME", str(make_home(settings) / "prefect"))
    for name, value in EMBEDDED.items():
        os.environ.setdefault(name, value)
    return True


@contextmanager
def prefect_server(settings: Settings) -> Iterator[None]:
    """Have a Prefect server for as long as the block runs: the one named, or one of our own."""
    if not embed(settings):
        check_answers(os.environ["PREFECT_API_URL"])
        yield
        return
    home = settings.home.absolute() / "prefect"
    record = home / "server.json"
    _end_orphan(record)
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    try:
        server.start(timeout=STARTUP_SECONDS)
    except (RuntimeError, OSError) as error:
        raise StorageError(
            f"The embedded Prefect server did not start: {error}.",
            f"Look for space and permissions in {home}, or name a running one in PREFECT_API_URL.",
        ) from error
    try:
        if server.server_process is not None:
            _write_record(record, server.server_process.pid)
        with _told_to_workers(server.api_url, settings):
            yield
    finally:
        server.stop()
        record.unlink(missing_ok=True)


@contextmanager
def telling() -> Iterator[None]:
    """See to it that events told in the block have reached the Prefect server, if one is named."""
    yield
    if os.environ.get("PREFECT_API_URL"):
        from prefect.events.worker import EventsWorker

        EventsWorker.drain_all(timeout=DRAIN_SECONDS, at_exit=False)


@contextmanager
def _told_to_workers(api_url: str, settings: Settings) -> Iterator[None]:
    """Have the workers of a cluster use our server: without an address each would start one of its own."""
    if settings.fan_out[0] == "local":
        yield
        return
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api_url}):
        yield


def check_answers(url: str) -> None:
    """Raise StorageError when the Prefect server at the address does not answer."""
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StorageError(
            f"The Prefect server at {url} does not answer: {error}.",
            "Start it, mend PREFECT_API_URL, or unset it to run embedded.",
        ) from error


def _write_record(record: Path, pid: int) -> None:
    server, owner = psutil.Process(pid), psutil.Process()
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(
        json.dumps(
            {
                "pid": pid,
                "started": server.create_time(),
                "owner": owner.pid,
                "owner_started": owner.create_time(),
            }
        )
    )


def _end_orphan(record: Path) -> None:
    """End the server that a killed run of this home left behind; nothing but what it recorded."""
    try:
        left = json.loads(record.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return
    if _same(left["owner"], left["owner_started"]) is None:
        orphan = _same(left["pid"], left["started"])
        if orphan is not None:
            orphan.terminate()
            psutil.wait_procs([orphan], timeout=10)
        record.unlink(missing_ok=True)


def _same(pid: int, started: float) -> psutil.Process | None:
    """Return the process if it is still the one that started then."""
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < 1.0 else None
    except psutil.NoSuchProcess:
        return None


async def drain() -> None:
    """Wait, within a bound, until the server has recorded every task run that was told to it."""
    from prefect.client.orchestration import get_client
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    await APILogHandler.aflush()
    drained = EventsWorker.drain_all(timeout=DRAIN_SECONDS, at_exit=False)
    if not isinstance(drained, tuple):
        await drained
    deadline, before = time.monotonic() + DRAIN_SECONDS, -1
    async with get_client() as client:
        while time.monotonic() < deadline:
            total = (await client.request("POST", "/task_runs/count", json={})).json()
            open_runs = (await client.request("POST", "/task_runs/count", json=UNFINISHED)).json()
            if total == before and open_runs == 0:
                return
            before = total
            await asyncio.sleep(SETTLE_SECONDS)
