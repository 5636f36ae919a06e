"""The catalogue of the service, read from the registry: base models, versions, personas.

Does not know HTTP. It is read at every request, so that a promotion takes effect at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from agents.chat import ChatModel, parse_address
from agents.errors import NotFound
from agents.schemas import Persona
from deployments.service.catalog import ServedModel
from tasks.cast import cast
from tasks.models import open_recorded
from tasks.storage import registry, stage
from tasks.storage.examples import get_dataset
from tasks.storage.store import Store
from tasks.storage.tables import Version

STAGE = "serve/1"


class StoreCatalog:
    """Every base model, every version, and every persona: its live version, or its base model."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def models(self) -> list[ServedModel]:
        """Return all models in the order base, personas, versions."""
        personas, versions = cast(self.store), registry.versions(self.store)
        return [*_bases(personas), *self._aliases(personas, versions), *map(self._version, versions)]

    def resolve(self, name: str) -> ServedModel:
        """Return a model by name; raise NotFound with the names there are."""
        found = {served.id: served for served in self.models()}
        if name not in found:
            raise NotFound(f"The model {name!r} does not exist.", f"Known: {', '.join(found)}.")
        return found[name]

    def open(self, served: ServedModel) -> ChatModel:
        """Open the model behind a name; its calls are recorded and never replayed."""
        return open_recorded(self.store, served.address, stage=STAGE, replay=False)

    def _aliases(self, personas: dict[str, Persona], versions: list[Version]) -> Iterator[ServedModel]:
        live = stage.live_versions(self.store)
        by_name = {version.name: version for version in versions}
        shown = dict(personas)
        for name, version_name in live.items():
            shown[name] = self._cast(by_name[version_name])
        for persona in shown.values():
            version = by_name.get(live.get(persona.name, ""))
            address = f"{version.base_model}@{version.job_id}" if version else persona.base_model
            played = f"version {version.number}" if version else "the base model; no version is live"
            yield ServedModel(
                id=persona.name,
                address=address,
                persona=persona,
                created=0,
                description=f"{persona.display_name}: {played}.",
            )

    def _version(self, version: Version) -> ServedModel:
        return ServedModel(
            id=version.name,
            created=int(datetime.fromisoformat(version.created_at).timestamp()),
            address=f"{version.base_model}@{version.job_id}",
            persona=self._cast(version),
            description=f"{version.persona}, version {version.number}.",
        )

    def _cast(self, version: Version) -> Persona:
        """Return the persona as it was when the version's examples were frozen."""
        return Persona.model_validate_json(get_dataset(self.store, version.dataset_id).cast)


def _bases(personas: dict[str, Persona]) -> Iterator[ServedModel]:
    for address in sorted({persona.base_model for persona in personas.values()}):
        name = parse_address(address).name
        yield ServedModel(
            id=name, address=address, created=0, description="The base model, without a persona."
        )
