"""Gathering: what comes together goes together, in order, and nobody's failure or end takes others along."""

import asyncio
import threading

from tasks.storage.gathering import Gathering


async def test_what_is_asked_while_a_batch_runs_is_the_next_batch() -> None:
    batches: list[list[int]] = []
    begun, release = threading.Event(), threading.Event()

    def double(items: list[int]) -> list[int]:
        batches.append(list(items))
        begun.set()
        release.wait(timeout=30)
        return [2 * item for item in items]

    gathering = Gathering(double)
    first = [asyncio.create_task(gathering.ask(item)) for item in range(3)]
    await asyncio.to_thread(begun.wait, 30)
    second = [asyncio.create_task(gathering.ask(item)) for item in range(3, 50)]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*first, *second) == [2 * item for item in range(50)]
    assert batches == [[0, 1, 2], list(range(3, 50))]


async def test_who_is_cancelled_takes_nobody_along() -> None:
    done: list[int] = []

    def note(items: list[int]) -> list[int]:
        done.extend(items)
        return list(items)

    gathering = Gathering(note)
    asked = [asyncio.create_task(gathering.ask(item)) for item in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    assert await asyncio.gather(*asked[1:]) == [1, 2]
    assert done == [0, 1, 2]


async def test_a_batch_that_fails_tells_all_who_asked_and_the_next_one_runs() -> None:
    def refuse_odd(items: list[int]) -> list[int]:
        if any(item % 2 for item in items):
            raise ValueError("odd")
        return list(items)

    gathering = Gathering(refuse_odd)
    said = await asyncio.gather(*(gathering.ask(item) for item in (2, 3)), return_exceptions=True)
    assert [str(error) for error in said] == ["odd", "odd"]
    assert await gathering.ask(4) == 4
