"""Queries on examples and the datasets made of them.

Does not know how examples are split or checked.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import TypeAdapter
from sqlmodel import col, select

from agents.errors import NotFound
from agents.schemas import Messages
from tasks.storage.store import Store, patient
from tasks.storage.tables import Dataset, Example

_MESSAGES: TypeAdapter[Messages] = TypeAdapter(Messages)


def dump_messages(messages: Messages) -> str:
    """Return messages as the canonical JSON of the tables."""
    return _MESSAGES.dump_json(messages).decode()


def load_messages(text: str) -> Messages:
    """Return messages from the canonical JSON of the tables."""
    return _MESSAGES.validate_json(text)


@patient
def examples(store: Store, persona: str, *, up_to_round: int | None = None) -> Iterator[Example]:
    """Return a persona's examples, or those that its rounds took up to the given one, in a stable order."""
    query = select(Example).where(Example.persona == persona).order_by(col(Example.id))
    if up_to_round is not None:
        query = query.where(col(Example.round) <= up_to_round)
    with store.session() as session:
        return iter(session.exec(query).all())


@patient
def get_dataset(store: Store, dataset_id: str) -> Dataset:
    """Return a dataset; raise NotFound when there is none of that id."""
    with store.session() as session:
        row = session.get(Dataset, dataset_id)
    if row is None:
        raise NotFound(f"There is no dataset {dataset_id!r}.", "`understudy finetune PERSONA` makes one.")
    return row
