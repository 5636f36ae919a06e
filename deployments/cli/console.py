"""What the command line prints: lines, tables, JSON, progress, errors.

Does not know any command.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from agents.errors import UnderstudyError
from tasks.progress import Progress


def say(text: str = "") -> None:
    """Print a line for a person."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(value: object) -> None:
    """Print a value for a script."""
    say(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def warn(text: str) -> None:
    """Print one line about what went wrong."""
    sys.stderr.write(f"understudy: {' '.join(text.split())}\n")


def fail(error: UnderstudyError) -> int:
    """Print an error as one line and return its exit code."""
    warn(str(error))
    return error.exit_code


def say_table(rows: Sequence[dict[str, object]], *, empty: str) -> None:
    """Print rows as aligned columns, or what it means that there are none."""
    if not rows:
        say(empty)
        return
    names = list(rows[0])
    cells = [[("" if row[name] is None else str(row[name])) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in [names, *cells]) for at in range(len(names))]
    for line in [names, *cells]:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


class ProgressLine:
    """Shows progress on standard error: one line that changes on a terminal, a line a tenth elsewhere."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.shown: dict[str, int] = {}

    def __call__(self, progress: Progress) -> None:
        """Show a progress that has changed."""
        tenth = int(progress.fraction * 10) if progress.total else -1
        line = f"[{time.monotonic() - self.started:4.0f} s] {progress.line()}"
        new = tenth != self.shown.get(progress.label)
        self.shown[progress.label] = tenth
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K{line}" + ("\n" if tenth == 10 and new else ""))
            sys.stderr.flush()
        elif new:
            sys.stderr.write(line + "\n")
