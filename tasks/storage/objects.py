"""Files that outlive a process: written whole or not at all.

Does not know what is in them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from agents.errors import StorageError


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Give a file to write, so that `path` holds all of it when the block ends, or what it held before.

    Raises StorageError, and leaves no partial file, when the disk is full or the folder not writable.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            yield cast("TextIO", file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror}.",
            "Free space or choose another folder, then run the same command again: nothing was lost.",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Write lines, each closed by a newline, whole or not at all; raise StorageError like `whole_file`."""
    with whole_file(path) as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all; raise StorageError like `whole_file`."""
    return write_lines(path, [text.removesuffix("\n")])


def remove_folder(path: Path) -> None:
    """Delete a folder with all it holds; one that is not there is fine."""
    shutil.rmtree(path, ignore_errors=True)
