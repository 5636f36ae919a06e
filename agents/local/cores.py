"""How many cores to compute on: those we may use, less those that others keep busy.

Does not know what is computed. The parts of a product wait for each other, so one busy neighbour stalls
all of them: on two cores shared with two other programs, two threads took four to ten times as long as one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

MAX_THREADS = 16
SECONDS_BETWEEN_LOOKS = 0.5
SPARE = 0.35


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, MAX_THREADS, _quota(Path("/sys/fs/cgroup/cpu.max"))))


def choose_threads(cores: int, *, others: float) -> int:
    """Return the threads to compute with when others keep this many cores busy."""
    return max(1, min(cores, int(cores - others + SPARE)))


class CoreWatch:
    """Looks, not more often than twice a second, at what everybody else leaves of the cores.

    To be used by the one thread that computes: of its own process, only that thread and the threads that
    help it are not counted as others.
    """

    def __init__(self) -> None:
        self.cores = usable_cores()
        self.threads = self.cores
        self._own = psutil.Process()
        self._last = self._look()

    def threads_now(self) -> int:
        """Return how many threads to compute with from now on."""
        if self.cores > 1 and time.monotonic() - self._last[0] >= SECONDS_BETWEEN_LOOKS:
            now = self._look()
            seconds, busy, own, thread = (new - old for new, old in zip(now, self._last, strict=True))
            others = busy - min(own, thread * self.threads)
            self.threads = choose_threads(self.cores, others=max(0.0, others) / seconds)
            self._last = now
        return self.threads

    def _look(self) -> tuple[float, float, float, float]:
        """Return the clock, and the seconds that all programs, this process and this thread computed."""
        every, mine = psutil.cpu_times(), self._own.cpu_times()
        idle = every.idle + getattr(every, "iowait", 0.0)
        busy = sum(every) - getattr(every, "guest", 0.0) - idle
        return time.monotonic(), busy, mine.user + mine.system, time.thread_time()


def _quota(file: Path) -> int:
    """Return the whole cores a cgroup grants; a large number when it sets no bound."""
    try:
        granted, period = file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return MAX_THREADS
    return MAX_THREADS if granted == "max" else max(1, round(int(granted) / int(period)))
