"""Promote: the gate decides, and only what passed goes on stage.

Does not know how a candidate was measured.
"""

from __future__ import annotations

import asyncio

from prefect import flow

from flows.reports import table
from tasks.promote import PromotionReport, promote_version
from tasks.specs import PromoteSpec


@flow(name="promote", flow_run_name="promote-{spec.persona}")
async def promote(spec: PromoteSpec) -> PromotionReport:
    """Decide on an evaluation, register its version, and say why."""
    report = await asyncio.to_thread(promote_version, spec)
    await table(
        f"gate-{report.persona}",
        [check.model_dump() for check in report.decision.checks],
        f"{report.version}: {report.decision.verdict}; live is {report.live or 'none'}",
    )
    return report
