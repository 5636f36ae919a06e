"""The cast: personas that ship, and those of one's own, kept so that a name means the same everywhere.

Does not know what they are asked to do. A file that is given once is found by its name ever after, also by
a worker that has never seen the file.
"""

from __future__ import annotations

from agents.errors import NotFound
from agents.personas import is_path, load_persona, shipped_personas
from agents.schemas import Persona
from tasks.storage.designs import designs, find_design, keep_design
from tasks.storage.store import Store


def find_persona(store: Store, name_or_path: str) -> Persona:
    """Return a persona by the path of its file, which is kept, or by name: one's own before one that ships.

    Raises NotFound with the names there are, PersonaInvalid for a file that does not validate.
    """
    if is_path(name_or_path):
        persona = load_persona(name_or_path)
        keep_design(store, persona)
        return persona
    own = find_design(store, name_or_path)
    if own is not None:
        return own
    if name_or_path in shipped_personas():
        return load_persona(name_or_path)
    known = ", ".join(cast(store))
    raise NotFound(
        f"There is no persona {name_or_path!r}.",
        f"Known: {known}; or give the path of a YAML file of your own.",
    )


def cast(store: Store) -> dict[str, Persona]:
    """Return every persona by name, one's own in place of those that ship."""
    shipped = {name: load_persona(name) for name in shipped_personas()}
    return dict(sorted({**shipped, **designs(store)}.items()))
