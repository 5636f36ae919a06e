"""What the listing commands show, as rows: jobs, versions.

Does not know how rows are printed.
"""

from __future__ import annotations

import json
from typing import Any

from tasks.storage import registry, stage
from tasks.storage.jobs import get_job, job_events, loss_curve
from tasks.storage.store import Store
from tasks.storage.tables import Job


def job_details(store: Store, job_id: str) -> dict[str, Any]:
    """Return one job with its settings, events and loss curve; raise NotFound when there is none."""
    job = get_job(store, job_id)
    settings = json.loads(job.hyperparameters)
    columns = [name for name in Job.model_fields if name != "hyperparameters"]
    return {
        **{name: getattr(job, name) for name in columns},
        "hyperparameters": ", ".join(f"{name} {value}" for name, value in settings.items()),
        "events": [{"at": event.at, "message": event.message} for event in job_events(store, job_id)],
        "losses": [
            {"step": point.step, "split": point.split, "loss": round(point.loss, 4)}
            for point in loss_curve(store, job_id)
        ],
    }


def version_rows(store: Store, persona: str | None) -> list[dict[str, object]]:
    """Return versions, oldest first, with lineage and verdict."""
    live = stage.live_versions(store)
    rows: list[dict[str, object]] = []
    for version in registry.versions(store, persona):
        decisions = [p for p in stage.promotions(store, version.persona) if p.version == version.name]
        last = decisions[-1] if decisions else None
        rows.append(
            {
                "version": version.name,
                "live": "live" if live.get(version.persona) == version.name else "",
                "change": version.change,
                "gate": last.verdict if last else None,
                "state": last.state if last else None,
                "by": last.decided_by if last else None,
                "parent": version.parent,
                "base": version.base_model,
                "job": version.job_id,
                "dataset": version.dataset_id,
                "evaluation": version.evaluation_id,
                "design": version.design,
                "created": version.created_at,
            }
        )
    return rows
