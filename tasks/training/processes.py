"""Processes that outlive whoever started them: start one, tell whether it lives, stop it.

Does not know what they do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

from tasks.training.folder import TrainerProcess

_SAME_START = 1.0
_STOP_SECONDS = 5.0


def start_module(module: str, arguments: Sequence[str], log: Path) -> TrainerProcess:
    """Run a module of ours in a session of its own; what it prints makes a new log.

    It works in the log's folder: the one that we are in may go away while it runs (a worker's does).
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd=log.parent,
            start_new_session=True,
        )
    process = describe(child.pid)
    threading.Thread(target=child.wait, name=f"reap {child.pid}", daemon=True).start()
    return process


def _environment() -> dict[str, str]:
    """Return ours, with our packages importable and idle threads asleep.

    By default OpenMP's threads spin while they wait for each other: on cores shared with a neighbour that
    made a training step four to six times as long.
    """
    ours = str(Path(__file__).resolve().parents[2])
    paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def describe(pid: int) -> TrainerProcess:
    """Return this process or a child of it with its start, by which it is known again."""
    return TrainerProcess(pid=pid, created=psutil.Process(pid).create_time())


def is_alive(process: TrainerProcess) -> bool:
    """Tell whether this very process still runs; one that ended but was not yet reaped does not."""
    found = _find(process)
    return found is not None and found.is_running()


def stop(process: TrainerProcess) -> None:
    """End the process and wait until it has; one that is gone already is fine."""
    found = _find(process)
    if found is None:
        return
    try:
        found.terminate()
        _, left = psutil.wait_procs([found], timeout=_STOP_SECONDS)
        for stubborn in left:
            stubborn.kill()
        psutil.wait_procs(left, timeout=_STOP_SECONDS)
    except psutil.NoSuchProcess:
        pass


def _find(process: TrainerProcess) -> psutil.Process | None:
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.created) < _SAME_START
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
