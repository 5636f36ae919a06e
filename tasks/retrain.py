"""Whom a schedule means, and whose conversations are to be brought in first.

Does not know when a round begins: `tasks/rounds.py` does.
"""

from __future__ import annotations

from agents.errors import InputError
from tasks.cast import cast, find_persona
from tasks.storage.rounds import example_counts
from tasks.storage.store import open_store
from tasks.training.rounds import Reason


def personas_to_retrain(reason: Reason) -> list[str]:
    """Return the personas with examples whose configuration names the schedule; all of them for a refresh.

    Raises InputError for a reason that means one persona.
    """
    if reason in ("asked", "threshold"):
        raise InputError(f"Retraining for the reason {reason!r} is for one persona.", "Name it.")
    store = open_store()
    found = cast(store)
    return [
        name
        for name in example_counts(store)
        if name in found and (reason == "refresh" or found[name].retraining.schedule == reason)
    ]


def wants_collecting(persona_name: str) -> bool:
    """Tell whether a persona learns from conversations in a file."""
    return find_persona(open_store(), persona_name).data.source != "synthetic"
