"""Collect: the persona's real conversations become examples.

Does not know in what format they lie.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from prefect import flow

from tasks.collect import CollectReport, collect_conversations


@flow(name="collect", flow_run_name="collect-{persona}")
async def collect(persona: str, file: Path | None = None) -> CollectReport:
    """Bring in the conversations of a file, or those that the persona names; what is there is left alone."""
    return await asyncio.to_thread(collect_conversations, persona, file)
