"""What the service serves: a model name, what answers behind it, and the protocol of a catalogue.

Does not know where names come from: a database, a test, a list.
"""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from agents.chat import ChatModel
from agents.schemas import Frozen, Persona, SamplingDefaults


class ServedModel(Frozen):
    """A model name: the base, a version, or a persona (its live version)."""

    id: str = Field(min_length=1)
    address: str = Field(
        description="opens the model that answers, for example local/smollm2-135m@jamie-0.2.0"
    )
    created: int = Field(ge=0, description="Unix seconds")
    owned_by: str = "understudy"
    persona: Persona | None = Field(default=None, description="who speaks; None for a bare base model")
    max_tokens: int | None = Field(default=None, ge=1, description="tokens of an answer nobody bounded")
    description: str = ""

    @property
    def sampling(self) -> SamplingDefaults:
        """Return how answers are drawn where a request says nothing."""
        return self.persona.sampling if self.persona else SamplingDefaults()

    @property
    def answer_tokens(self) -> int:
        """Return the bound of an answer where a request sets none."""
        return self.max_tokens or self.sampling.serving_max_tokens


class Catalog(Protocol):
    """Every name that can be asked for, read anew for each request.

    The service calls it from worker threads, several at a time: a catalogue must stand that.
    """

    def models(self) -> list[ServedModel]:
        """Return all served models in the order they are shown."""

    def resolve(self, name: str) -> ServedModel:
        """Return the model of that name as it is now; raise NotFound with the names that exist."""

    def open(self, served: ServedModel) -> ChatModel:
        """Return the model that answers, the same one each time while its address stays the same.

        Raises ModelUnavailable or AdapterInvalid when it cannot be opened.
        """
