"""Collect: the persona's real conversations become examples.

Does not know in what format they lie.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from tasks.collect import CollectReport, collect_conversations


@flow(name="collect", flow_run_name="collect-{persona}")
async def collect(persona: str) -> CollectReport:
    """Bring in the conversations that the persona names; those that are there are left alone."""
    return await asyncio.to_thread(collect_conversations, persona)
