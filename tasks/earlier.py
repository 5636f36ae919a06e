"""The texts that a stage of a run has accepted, to hold the next one against.

Does not know how texts are written. What this process accepts is seen at once, what other processes
accept within a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic

from agents import documents, ideas, responses
from agents.twins import Twins
from tasks.storage.drafts import Stage, accepted_positions, accepted_texts
from tasks.storage.gathering import Gathering
from tasks.storage.store import Store

THRESHOLDS: dict[Stage, float] = {
    "idea": ideas.SIMILARITY,
    "document": documents.SIMILARITY,
    "response": responses.SIMILARITY,
}
READ_EVERY = 1.0  # seconds


@dataclass
class Earlier:
    """The accepted texts of one stage of one run, as far as this process has read them."""

    store: Store
    run: str
    stage: Stage
    twins: Twins
    read_at: float = -READ_EVERY  # monotonic; negative before the first reading

    async def catch_up(self) -> None:
        """Read what others have accepted since."""
        if monotonic() < self.read_at + READ_EVERY:
            return
        if self.read_at >= 0:
            self.read_at = monotonic()  # nobody waits for a later reading but the one who makes it
        for position, text in (await self._reading().ask(None)).items():
            self.twins.add(position, text)
        self.read_at = monotonic()

    def _reading(self) -> Gathering[None, dict[int, str]]:
        return self.store.gathering(f"texts:{self.run}:{self.stage}", self._unread)

    def _unread(self, askers: Sequence[None]) -> list[dict[int, str]]:
        """Return the texts that are new, once for all who ask."""
        accepted = accepted_positions(self.store, self.run, self.stage)
        new = [position for position in accepted if position not in self.twins.texts]
        return [accepted_texts(self.store, self.run, self.stage, new)] * len(askers)


@lru_cache(maxsize=len(THRESHOLDS))
def earlier_texts(store: Store, run: str, stage: Stage) -> Earlier:
    """Return the accepted texts of a stage, one object for all shards of this process."""
    return Earlier(store, run, stage, Twins(THRESHOLDS[stage]))
