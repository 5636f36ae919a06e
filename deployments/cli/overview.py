"""What `understudy status` shows: personas, open jobs, runs, and what happens next.

Does not know how any of it comes to be.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from agents.errors import StorageError
from deployments.cli.console import say, say_json, say_table
from tasks.overview import JobStanding, PersonaStanding, jobs_standing, personas_standing
from tasks.storage.engines import home_name
from tasks.storage.store import Store

CLEAR = "\x1b[2J\x1b[H"


def show_overview(store: Store, *, every: float | None, as_json: bool) -> None:
    """Show the overview once, or anew every so many seconds until the process is stopped."""
    shown = None
    while True:
        found = overview(store)
        if found != shown:
            if every is not None and sys.stdout.isatty():
                sys.stdout.write(CLEAR)
            say_json(found) if as_json else say_overview(found)
            shown = found
        if every is None:
            return
        time.sleep(every)


def overview(store: Store) -> dict[str, Any]:
    """Return everything as plain values: personas, jobs, runs, scheduled runs."""
    from deployments.runs import recent_runs

    runs: dict[str, Any] = {"server": os.environ.get("PREFECT_API_URL"), "recent": [], "scheduled": []}
    if runs["server"]:
        try:
            runs = asyncio.run(recent_runs())
            runs["home"] = home_name(store.settings)
            runs["elsewhere"] = runs["home_of_workers"] not in (None, runs["home"])
        except StorageError as error:
            runs["error"] = str(error)
    return {
        "personas": [standing.model_dump() for standing in personas_standing(store)],
        "jobs": [standing.model_dump() for standing in jobs_standing(store)],
        "runs": runs,
    }


def say_overview(found: dict[str, Any]) -> None:
    """Print the overview for a person."""
    personas = [PersonaStanding.model_validate(row) for row in found["personas"]]
    say("PERSONAS")
    say_table([_persona_row(row) for row in personas], empty="None has examples yet: `understudy demo`.")
    say("\nJOBS")
    rows = [_job_row(JobStanding.model_validate(row)) for row in found["jobs"]]
    say_table(rows, empty="None yet: `understudy finetune PERSONA` trains one.")
    runs = found["runs"]
    say("\nRUNS")
    if runs["server"] is None:
        say("No Prefect server is named (PREFECT_API_URL): nothing starts by itself.")
        say("`understudy retrain PERSONA` does a round, from what is new to the decision.")
    elif "error" in runs:
        say(runs["error"])
    else:
        say_table(runs["recent"], empty=f"None yet on {runs['server']}.")
        if runs["elsewhere"]:
            say(f"\nTHE WORKER USES ANOTHER HOME: {runs['home_of_workers']}.")
            say(f"This command reads {runs['home']}.")
            say("Name one home for both with UNDERSTUDY_HOME or UNDERSTUDY_DATABASE_URL.")
        say("\nSCHEDULED")
        say_table(runs["scheduled"], empty="Nothing: `understudy deploy` registers the schedules.")
    say("\nNEXT")
    for row in personas:
        for sentence in row.next:
            say(f"{row.persona}: {sentence}")
    if not personas:
        say("Nothing.")


def _persona_row(row: PersonaStanding) -> dict[str, object]:
    return {
        "persona": row.persona,
        "on stage": row.live or "base model",
        "versions": row.versions,
        "examples": row.examples,
        "new": f"{row.new_examples}/{row.threshold}",
        "schedule": row.schedule,
        "refresh": row.refresh_on,
        "last round": f"{row.round}: {row.outcome or 'under way'}" if row.round else None,
    }


def _job_row(row: JobStanding) -> dict[str, object]:
    left = f"{row.seconds_left:.0f} s" if row.seconds_left is not None else None
    return {
        "job": row.job,
        "persona": row.persona,
        "status": row.status,
        "step": f"{row.step}/{row.total_steps}",
        "left": left,
        "restarts": row.restarts or None,
        "seen": row.updated_at,
        "trouble": row.stuck or row.error,
    }
