"""Gathering: what many coroutines ask of the database, done in batches in a thread.

Does not know what is asked. While one batch runs the next one gathers, so that a batch is as large as the
database is slow, and nobody waits for more than two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gathering(Generic[Item, Result]):
    """The batches of one kind of work, for the coroutines of one event loop."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._work = work
        self._items: list[Item] = []
        self._batch: asyncio.Task[Sequence[Result]] | None = None
        self._turn = asyncio.Lock()

    async def ask(self, item: Item) -> Result:
        """Have an item in the next batch; return its result, or raise what the whole batch raised."""
        place = len(self._items)
        self._items.append(item)
        if self._batch is None:
            self._batch = asyncio.create_task(self._run())
        # Shielded: who is cancelled takes nobody else's work with him.
        return (await asyncio.shield(self._batch))[place]

    async def _run(self) -> Sequence[Result]:
        async with self._turn:
            items, self._items, self._batch = self._items, [], None
            return await asyncio.to_thread(self._work, items)
