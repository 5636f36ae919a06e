"""What the Prefect server has run, runs, and will run for us.

Does not know what the runs do.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agents.errors import StorageError
from deployments.launch import COMMAND_TAG, check_answers
from tasks.homes import home_of_workers

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

SHOWN = 8
TAG = "understudy"


async def recent_runs() -> dict[str, Any]:
    """Return our newest runs and, of each deployment, the next scheduled one.

    Raises StorageError when the server that PREFECT_API_URL names does not answer.
    """
    import httpx

    server = os.environ["PREFECT_API_URL"]
    check_answers(server)
    try:
        recent, scheduled, names = await _asked()
        theirs = await home_of_workers()
    except httpx.HTTPError as error:
        raise StorageError(f"The Prefect server at {server} went away: {error!r}.", "Look again.") from error
    return {
        "server": server,
        "home_of_workers": theirs,
        "recent": [_row(run, run.name, run.start_time) for run in recent],
        "scheduled": _next_of_each(scheduled, names),
    }


async def _asked() -> tuple[list[FlowRun], list[FlowRun], dict[UUID, str]]:
    """Return our newest runs, those to come, and the deployments' names by id."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    begun: dict[str, Any] = {"tags": {"any_": [TAG, COMMAND_TAG]}, "start_time": {"is_null_": False}}
    coming: dict[str, Any] = {"tags": {"all_": [TAG]}, "state": {"type": {"any_": ["SCHEDULED", "PAUSED"]}}}
    async with get_client() as client:
        recent = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(begun), sort=FlowRunSort.START_TIME_DESC, limit=SHOWN
        )
        scheduled = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(coming),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=200,
        )
        names = {row.id: row.name for row in await client.read_deployments()}
    return recent, scheduled, names


def _next_of_each(runs: list[FlowRun], names: dict[UUID, str]) -> list[dict[str, object]]:
    """Return the first coming run of each deployment and schedule, named after its deployment."""
    found: dict[str, dict[str, object]] = {}
    for run in runs:
        name = names.get(run.deployment_id, run.name) if run.deployment_id else run.name
        found.setdefault(f"{name} {run.parameters}", _row(run, name, run.expected_start_time))
    return list(found.values())


def _row(run: FlowRun, name: str, at: datetime | None) -> dict[str, object]:
    spec = run.parameters.get("spec")
    asked = spec if isinstance(spec, dict) else {}
    return {
        "run": name,
        "for": asked.get("persona") or asked.get("reason") or run.parameters.get("persona"),
        "state": run.state_name,
        "at": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at else None,
    }
