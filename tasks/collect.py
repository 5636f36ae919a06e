"""Collect conversations that took place: a file into rows, each once.

Does not know what is learned from them.
"""

from __future__ import annotations

from pathlib import Path

from prefect import task

from agents.errors import DatasetInvalid
from agents.personas import conversations_path
from agents.schemas import Conversation, Frozen, Persona, fingerprint
from tasks.cast import find_persona
from tasks.rounds import examples_arrived
from tasks.sources.files import read_conversations
from tasks.storage import tables
from tasks.storage.examples import dump_messages
from tasks.storage.store import Store, open_store


class CollectReport(Frozen):
    """How many conversations a file held and how many of them were new."""

    persona: str
    file: Path
    read: int
    added: int


@task(name="collect-conversations", task_run_name="collect[{persona_name}]")
def collect_conversations(persona_name: str, file: Path | None = None) -> CollectReport:
    """Read the persona's conversations into the store, each as an example; what is there is left alone.

    They are those of the file, or of the one that the persona names.

    Raises DatasetInvalid, before anything is added, when the file has a malformed line or none at all.
    """
    store = open_store()
    persona = find_persona(store, persona_name)
    path = file or conversations_path(persona)
    found = [
        conversation
        for conversation in read_conversations(path)
        if not persona.data.categories or conversation.category in persona.data.categories
    ]
    if not found:
        raise DatasetInvalid(f"{path} holds no conversation for {persona.name}.", "Add some, one a line.")
    added = sum(_keep(store, persona, conversation) for conversation in found)
    examples_arrived(store, persona.name, added)
    return CollectReport(persona=persona.name, file=path, read=len(found), added=added)


def _keep(store: Store, persona: Persona, conversation: Conversation) -> bool:
    store.add_new(
        tables.Conversation(
            id=conversation.id,
            persona=persona.name,
            category=conversation.category,
            source="file",
            messages=dump_messages(conversation.messages),
        )
    )
    return store.add_new(
        tables.Example(
            id=fingerprint(persona.name, conversation.id),
            persona=persona.name,
            source="conversation",
            origin=conversation.id,
            category=conversation.category,
            messages=dump_messages(conversation.messages),
        )
    )
