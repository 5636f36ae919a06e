"""The texts that a stage of a run has accepted, to hold the next one against.

Does not know how texts are written. What this process accepts is seen at once, what other processes
accept within a second, or later where there are so many that looking takes long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from time import monotonic

from agents import documents, ideas, pairs, responses
from agents.quality import near_duplicate
from agents.twins import Twins
from tasks.storage.drafts import PAGE, Stage, accepted_positions, texts_at
from tasks.storage.gathering import Gathering
from tasks.storage.store import Store

THRESHOLDS: dict[Stage, float] = {
    "idea": ideas.SIMILARITY,
    "document": documents.SIMILARITY,
    "response": responses.SIMILARITY,
    "question": pairs.SIMILARITY,
    "chosen": responses.SIMILARITY,
    "rejected": 0.9,
}
WINDOW = 10 * PAGE  # positions looked at together
READ_EVERY = 1.0  # seconds
READ_SHARE = 0.05  # of the time, where reading takes long


@dataclass
class Earlier:
    """The accepted texts of one stage of one run, as far as this process has read them, as hashes.

    A text is whole in memory only while it is not yet committed.
    """

    store: Store
    run: str
    stage: Stage
    twins: Twins
    pending: dict[int, str] = field(default_factory=dict)
    read_next: float = 0.0  # monotonic
    read_to: int = -1  # the position up to which the reading under way has come

    async def nearest(self, text: str, *, besides: int) -> str | None:
        """Return the accepted text of another position that the text nearly repeats, or None.

        Between the last look and the return nothing else runs: `keep` at once, and no twin slips in.
        """
        await self._catch_up()
        read: dict[int, str] = {}
        while unread := self.twins.candidates(text) - read.keys() - {besides}:
            read |= await self._texts(unread)
        others = [read[position] for position in sorted(read)]
        twin = near_duplicate(text, others, threshold=self.twins.threshold)
        return None if twin is None else others[twin]

    def keep(self, position: int, text: str) -> None:
        """Have a text that was just accepted found from now on; `kept` says that it is committed."""
        self.twins.add(position, text)
        self.pending[position] = text

    def kept(self, position: int) -> None:
        """Forget the text itself: the database has it."""
        self.pending.pop(position, None)

    async def _texts(self, positions: Set[int]) -> dict[int, str]:
        held = {position: self.pending[position] for position in positions & self.pending.keys()}
        rest = sorted(positions - held.keys())
        found = await asyncio.to_thread(texts_at, self.store, self.run, self.stage, rest) if rest else {}
        return dict.fromkeys(positions, "") | held | found

    async def _catch_up(self) -> None:
        """Read what others have accepted since."""
        if monotonic() < self.read_next:
            return
        started = monotonic()
        if self.read_next:
            self.read_next = inf  # nobody waits for a later reading but the one who makes it
        while new := await self._reading().ask(None):
            for position, text in new.items():
                self.twins.add(position, text)
        self.read_next = monotonic() + max(READ_EVERY, (monotonic() - started) / READ_SHARE)

    def _reading(self) -> Gathering[None, dict[int, str]]:
        return self.store.gathering(f"texts:{self.run}:{self.stage}", self._unread)

    def _unread(self, askers: Sequence[None]) -> list[dict[int, str]]:
        """Return a page of texts that are new, once for all who ask; an empty one ends the reading."""
        page: dict[int, str] = {}
        asked = self.store, self.run, self.stage
        while not page and (found := accepted_positions(*asked, after=self.read_to, limit=WINDOW)):
            new = [position for position in found if position not in self.twins][:PAGE]
            self.read_to = new[-1] if len(new) == PAGE else found[-1]
            page = texts_at(*asked, new) if new else {}
        if not page:
            self.read_to = -1
        return [page] * len(askers)


@lru_cache(maxsize=len(THRESHOLDS))
def earlier_texts(store: Store, run: str, stage: Stage) -> Earlier:
    """Return the accepted texts of a stage, one object for all shards of this process."""
    return Earlier(store, run, stage, Twins(THRESHOLDS[stage]))
