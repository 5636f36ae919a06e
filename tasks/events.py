"""Events: what happened, told on Prefect's bus, where automations wait for it.

Does not know what follows from an event: `deployments/automations.yaml` says so.

    understudy.examples.accepted                     new examples of a persona
    understudy.round.due                             a round of training has begun and wants its job
    understudy.round.failed                          its examples could not be trained on
    understudy.job.completed|error|cancelled|stuck   a job ended, or gives no sign of life
    understudy.evaluation.passed|failed|inconclusive what the gate will say
    understudy.version.promoted|refused|waiting|rejected|rolled-back
"""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID, uuid4


def is_heard() -> bool:
    """Tell whether a Prefect server is named, so that automations may follow what is told."""
    return bool(os.environ.get("PREFECT_API_URL"))


def tell(event: str, name: str, *, persona: str, **payload: Any) -> None:
    """Emit `understudy.<event>` about the thing of that name; without a server to hear it, do nothing."""
    emit(event, name, {"persona": persona, **payload})


def emit(event: str, name: str, payload: dict[str, Any], *, identity: UUID | None = None) -> None:
    """Emit an event whose payload names the persona; two of one identity are the same event."""
    from prefect.context import FlowRunContext, TaskRunContext

    if not (is_heard() or FlowRunContext.get() or TaskRunContext.get()):
        return
    from prefect.events import emit_event

    emit_event(
        event=f"understudy.{event}",
        id=identity or uuid4(),
        resource={
            "prefect.resource.id": f"understudy.{event.split('.', maxsplit=1)[0]}.{name}",
            "prefect.resource.name": name,
            "understudy.persona": payload["persona"],
        },
        payload=payload,
    )
