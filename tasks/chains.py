"""The fallback chains that have names, in chains.yaml, and whether a chain can be asked at all.

Does not know what is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pydantic import RootModel

from agents.chat import open_model, parse_address
from agents.definitions import parse_definition, read_text, validate_definition
from agents.errors import KeyMissing, ModelUnavailable, NotFound
from agents.plugins import load_plugin
from agents.schemas import Frozen
from tasks.models import remote_places
from tasks.policies import FallbackChain, Rung
from tasks.storage.settings import read_settings

FILE = Path(__file__).with_suffix(".yaml")


class NamedChain(Frozen):
    """Who writes ideas and documents, and who plays the persona."""

    writers: tuple[Rung, ...]
    actors: tuple[Rung, ...]


class NamedChains(RootModel[dict[str, NamedChain]]):
    """All chains by name."""


@cache
def load_chains(path: Path = FILE) -> dict[str, NamedChain]:
    """Return the chains of a file by name; raise InputError with file, line and field of each problem."""
    return validate_definition(parse_definition(read_text(path), path.name), NamedChains).root


def find_chain(name: str) -> tuple[FallbackChain, FallbackChain]:
    """Return the chains of writers and actors that go by a name; raise NotFound with the names there are."""
    chains = load_chains()
    if name not in chains:
        raise NotFound(f"There is no chain {name!r}.", f"Known: {', '.join(chains)}.")
    found = chains[name]
    return FallbackChain(rungs=found.writers), FallbackChain(rungs=found.actors)


def check_models(addresses: Iterable[str]) -> None:
    """Refuse models that cannot be asked, before any is; what is only not there now is left to the chain.

    Raises NotFound for an unknown provider or model, KeyMissing naming every variable that is to be set.
    """
    missing: list[KeyMissing] = []
    for address in dict.fromkeys(addresses):
        parsed = parse_address(address)
        load_plugin("models", parsed.provider)
        if parsed.provider == "local":
            continue
        try:
            open_model(address, remote_places(read_settings()))
        except KeyMissing as error:
            missing.append(error)
        except ModelUnavailable:
            continue
    if missing:
        messages, remedies = zip(*((error.message, error.remedy) for error in missing), strict=True)
        raise KeyMissing(" ".join(messages), " ".join(dict.fromkeys(remedies)))
