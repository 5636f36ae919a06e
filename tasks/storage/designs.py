"""Queries on designs: personas of one's own.

Does not know the personas that ship; those are files.
"""

from __future__ import annotations

from sqlmodel import select

from agents.schemas import Persona
from tasks.storage.store import Store, patient
from tasks.storage.tables import Design, now


@patient
def keep_design(store: Store, persona: Persona) -> None:
    """Keep a persona under its name, in place of what that name meant before."""
    definition = persona.model_dump_json()
    with store.session() as session:
        row = session.get(Design, persona.name)
        if row is not None and row.definition == definition:
            return
    with store.session(write=True) as session:
        session.merge(Design(name=persona.name, definition=definition, updated_at=now()))


@patient
def find_design(store: Store, name: str) -> Persona | None:
    """Return the persona that was kept under a name, or None."""
    with store.session() as session:
        row = session.get(Design, name)
    return None if row is None else Persona.model_validate_json(row.definition)


@patient
def designs(store: Store) -> dict[str, Persona]:
    """Return every kept persona by name."""
    with store.session() as session:
        return {row.name: Persona.model_validate_json(row.definition) for row in session.exec(select(Design))}
