"""One run measured: a fresh process against a fresh stand-in, its times, its processor time and its calls.

Does not know who runs nor what the figures are compared with. Times are what the stand-in saw and what the
operating system accounts to the process and to the children that it waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOOK = 0.02
LOOK_AT_CALLS = 0.05
TAIL = 300


@dataclass(frozen=True)
class Outcome:
    """How a process ended: when it began (monotonic) and how long it took, its CPU seconds, its rows."""

    began: float
    wall: float
    cpu: float
    rows: int
    problem: str = ""


@dataclass(frozen=True)
class Figures:
    """What is reported of a run; `more` is what was called beyond three calls a row."""

    seconds: float
    wall: float
    first: float
    cpu: float
    calls: int
    more: int
    rejected: int
    failed: int
    repeated: int
    peak: int
    rows: int
    prefect_cpu: float = 0.0
    problem: str = ""


def run_process(
    command: list[str], environment: dict[str, str], folder: Path, *, limit: float, done: Callable[[], bool]
) -> Outcome:
    """Run a command to its end, until `done` says that it is to be killed, or for `limit` seconds."""
    output, errors = folder / "output.txt", folder / "errors.txt"
    with output.open("wb") as out, errors.open("wb") as err:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=out, stderr=err, start_new_session=True
        )
        try:
            problem, usage = follow(process, until=began + limit, done=done)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
    wall = time.monotonic() - began
    if process.returncode and not problem:
        problem = f"exit {process.returncode}: {errors.read_text(errors='replace')[-TAIL:]}"
    return Outcome(began, wall, usage.ru_utime + usage.ru_stime, rows_of(output.read_text()), problem)


def follow(
    process: subprocess.Popen[bytes], *, until: float, done: Callable[[], bool]
) -> tuple[str, resource.struct_rusage]:
    """Wait for the end of a process, or kill its group; return why, and what it and its children used."""
    problem, looked = "", time.monotonic()
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return problem, usage
        now = time.monotonic()
        if now > until:
            problem = "given up, not done in time"
        elif now - looked > LOOK_AT_CALLS:
            looked = now
            problem = "killed" if done() else problem
        if problem:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(LOOK)


def rows_of(output: str) -> int:
    """Return the whole rows that the JSON at the end of an output tells of; 0 when it tells of none."""
    for start in re.finditer(r"^\{", output, re.MULTILINE):
        try:
            told = json.loads(output[start.start() :])
        except json.JSONDecodeError:
            continue
        return int(told.get("rows", told.get("accepted", 0)))
    return 0
