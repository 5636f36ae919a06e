"""What a flow shows while it runs and when it ends: progress, tables, Markdown.

Does not know what is being done. Artifacts have stable keys, so that each has its history in Prefect's UI.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from tasks.progress import Progress, current

Listener = Callable[[Progress], None]
STEP = 0.05
TICK = 0.5

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@asynccontextmanager
async def tracked(label: str, total: int) -> AsyncIterator[Progress]:
    """Open a progress for a fan-out, shown as one Prefect artifact and to whoever listens in process."""
    progress = Progress(label=label, total=total)
    token = current.set(progress)
    watcher = asyncio.create_task(_show(progress))
    try:
        yield progress
    finally:
        current.reset(token)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        _tell(progress)


async def _show(progress: Progress) -> None:
    """Tell listeners of every change, and Prefect of every few per cent."""
    artifact = await acreate_progress_artifact(
        progress=0.0, key=artifact_key("progress", progress.label), description=progress.line()
    )
    shown, seen = 0.0, -1
    try:
        while True:
            if progress.changes != seen:
                seen = progress.changes
                _tell(progress)
            if progress.fraction >= shown + STEP:
                shown = progress.fraction
                await aupdate_progress_artifact(artifact, progress=100.0 * shown, description=progress.line())
            await asyncio.sleep(TICK)
    finally:
        await asyncio.shield(
            aupdate_progress_artifact(
                artifact, progress=100.0 * progress.fraction, description=progress.line()
            )
        )


def _tell(progress: Progress) -> None:
    listen = listener.get()
    if listen is not None:
        listen(progress)


async def table(key: str, rows: list[dict[str, object]], description: str) -> None:
    """Keep a table as an artifact."""
    await acreate_table_artifact(key=artifact_key(key), table=rows, description=description)


async def markdown(key: str, text: str, description: str) -> None:
    """Keep a Markdown text as an artifact."""
    await acreate_markdown_artifact(key=artifact_key(key), markdown=text, description=description)


def artifact_key(*parts: str) -> str:
    """Return the parts as a key that Prefect accepts: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
