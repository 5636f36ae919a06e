"""Every policy of a task in one place: retries, fallback chains, timeouts, concurrency.

Does not know what the tasks do. A fallback chain is data: it expands to ordinary Prefect task options,
so every model that was gone on to shows in Prefect's UI as a retry of one task run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from pydantic import Field

from agents.errors import AdapterInvalid, ContextExceeded, ModelError, ModelUnavailable
from agents.pacing import Learned, Pace
from agents.schemas import Frozen
from tasks.storage.settings import read_settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

SHARD = 25
Item = TypeVar("Item")
_unavailable: dict[UUID, dict[str, str]] = {}
_learned: dict[str, Learned] = {}
_paces: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Pace]] = WeakKeyDictionary()
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Rung(Frozen):
    """One model of a chain: how often a call of it is tried, and the seconds before each further try.

    The last delay repeats; each is stretched or shortened at random by up to half.
    """

    model: str
    attempts: int = Field(default=4, ge=1)
    delays: tuple[float, ...] = (0.1, 0.5, 2.5)


class FallbackChain(Frozen):
    """Models tried in order until one answers.

    Two layers, and no error is retried by both: a call that fails in passing is tried again by itself, as
    its rung says (`agents/pacing.py`), soon and without waiting for its shard; a shard some of whose calls
    have used up their tries ends in a PartialFailure, and Prefect runs it again, for the missing items only,
    with the model of the next rung. So an attempt of the task run is a rung of the chain.
    """

    rungs: tuple[Rung, ...] = Field(min_length=1)

    @classmethod
    def of(cls, models: Iterable[str]) -> FallbackChain:
        """Make a chain that tries each model with the default attempts and delays."""
        return cls(rungs=tuple(Rung(model=model) for model in models))

    def rung(self, run_count: int, unavailable: Mapping[str, str] | None = None) -> Rung:
        """Return the rung of an attempt, counted from 1, leaving out models known to be unavailable.

        `unavailable` holds the reason by model. Raises ModelUnavailable, with the reasons, when none is left.
        """
        unavailable = unavailable or {}
        left = [rung for rung in self.rungs[run_count - 1 :] if rung.model not in unavailable]
        if not left:
            raise ModelUnavailable(
                f"No model of the chain is available: {', '.join(rung.model for rung in self.rungs)}.",
                " ".join(unavailable.values()) or "Name at least one that can be opened.",
            )
        return left[0]

    def options(self) -> dict[str, Any]:
        """Return the chain as Prefect task options: a retry for every further rung, at once."""
        return {
            "retries": len(self.rungs) - 1,
            "retry_delay_seconds": 0,
            "retry_condition_fn": can_retry,
            "persist_result": False,
        }


class PartialFailure(ModelError):
    """Report a shard whose finished items are kept and whose others need another attempt."""

    def __init__(self, failed: dict[int, str], *, total: int, model: str, final: bool) -> None:
        first = next(iter(failed.values()))
        super().__init__(
            f"{len(failed)} of {total} items are missing after {model}: {first}",
            "Finished items are kept; the next attempt asks only for the missing ones.",
        )
        self.failed = failed
        self.total = total
        self.model = model
        self.final = final

    def __reduce__(self) -> tuple[Any, ...]:
        remade = partial(type(self), total=self.total, model=self.model, final=self.final)
        return remade, (self.failed,)


async def settle(work: Mapping[int, Awaitable[None]], *, total: int, model: str) -> None:
    """Await the work on each item of a shard, whatever becomes of the others.

    Raises PartialFailure with the items that the model did not answer, or the first error of another kind.
    """
    outcomes = await asyncio.gather(*work.values(), return_exceptions=True)
    failed = {at: error for at, error in zip(work, outcomes, strict=True) if error is not None}
    for error in failed.values():
        if not isinstance(error, (ModelError, ContextExceeded)):
            raise error
    if failed:
        reasons = {at: str(error) for at, error in failed.items()}
        raise PartialFailure(reasons, total=total, model=model, final=False)


def can_retry(_task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect whether another attempt can help, and remember a model that is not there.

    A plain function: Prefect 3.8 silently never retries when this is a method or a partial.
    """
    error = state.data
    if isinstance(error, PartialFailure) and error.final:
        _unavailable.setdefault(task_run.id, {})[error.model] = next(iter(error.failed.values()))
    return isinstance(error, ModelError) and not isinstance(error, (ModelUnavailable, AdapterInvalid))


# One model, asked again: for tasks whose finished calls the ledger replays.
MODEL_CALLS: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [1.0, 5.0],
    "retry_condition_fn": can_retry,
    "persist_result": False,
}


def attempt() -> tuple[int, Mapping[str, str]]:
    """Return the attempt of the task run at hand, counted from 1, and the models it found unavailable."""
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    if context is None:
        return 1, {}
    return context.task_run.run_count, _unavailable.get(context.task_run.id, {})


def shards(items: Sequence[Item], size: int = SHARD) -> Iterator[Sequence[Item]]:
    """Yield the items in shards, one task run each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def open_shards() -> int:
    """Return how many shards of a fan-out are at work at once: enough to keep every call slot taken."""
    return 2 * ceil(read_settings().concurrent_calls / SHARD) + 4


def call_slot() -> asyncio.Semaphore:
    """Return what to enter for a model call: the process-wide bound, UNDERSTUDY_CONCURRENT_CALLS."""
    loop = asyncio.get_running_loop()
    if loop not in _slots:
        _slots[loop] = asyncio.Semaphore(read_settings().concurrent_calls)
    return _slots[loop]


def call_pace(address: str) -> Pace:
    """Return the pace of a model in this event loop; what was learned of it holds for the whole process."""
    paces = _paces.setdefault(asyncio.get_running_loop(), {})
    if address not in paces:
        learned = _learned.setdefault(address, Learned())
        paces[address] = Pace(most=read_settings().concurrent_calls, learned=learned)
    return paces[address]
