"""Fan-out: a task on every shard, in this process or on a Dask or Ray cluster, by the one setting.

Does not know what the task does. Async tasks are never submitted to a thread pool: here they are gathered
in one event loop, so that they share its clients and its bound on calls; on a cluster each worker thread
has a loop of its own and works on one shard at a time.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from agents.errors import InputError
from tasks.policies import PartialFailure, open_shards
from tasks.progress import advance
from tasks.storage.settings import read_settings

if TYPE_CHECKING:
    from prefect import Task
    from prefect.futures import PrefectFuture
    from prefect.task_runners import TaskRunner

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = Callable[[list[Item]], Mapping[str, Any]]
GiveUp = Callable[[PartialFailure], None]
PACE = 0.01  # seconds between the starts of shards here: the first calls begin before the last shard has
RUNNERS = {"dask": ("prefect_dask", "DaskTaskRunner"), "ray": ("prefect_ray", "RayTaskRunner")}
# A cluster of our own on this machine; its pages would listen on every interface.
OWN_CLUSTER: dict[str, dict[str, Any]] = {
    "dask": {"cluster_kwargs": {"dashboard_address": None}},
    "ray": {"init_kwargs": {"include_dashboard": False}},
}

_cluster: ContextVar[TaskRunner[Any] | None] = ContextVar("cluster", default=None)


@asynccontextmanager
async def workers() -> AsyncIterator[None]:
    """Have the cluster that UNDERSTUDY_RUNNER names for the fan-outs of the block; none when it is `local`.

    Raises InputError when its package is not installed or no cluster answers at its address.
    """
    kind, address = read_settings().fan_out
    if kind == "local":
        with _unswept():
            yield
        return
    runner = _make_runner(kind, address)
    await asyncio.to_thread(_start, runner, address)
    token = _cluster.set(runner)
    try:
        yield
    finally:
        _cluster.reset(token)
        await asyncio.to_thread(runner.__exit__, None, None, None)


@contextmanager
def _unswept() -> Iterator[None]:
    """Keep the garbage collector off what is loaded: a sweep of it holds every call up for 0.2 s and more."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _make_runner(kind: str, address: str | None) -> TaskRunner[Any]:
    package, name = RUNNERS[kind]
    try:
        runner = getattr(import_module(package), name)
    except ImportError as error:
        raise InputError(
            f"UNDERSTUDY_RUNNER={kind} needs {error.name}, which is not installed.",
            f"pip install 'understudy[{kind}]', or unset it to run in this process.",
        ) from error
    made: TaskRunner[Any] = runner(address=address) if address else runner(**OWN_CLUSTER[kind])
    return made


def _start(runner: TaskRunner[Any], address: str | None) -> None:
    try:
        runner.__enter__()
        getattr(runner, "client", None)  # Dask connects when its client is first asked for
    except (OSError, ValueError) as error:
        raise InputError(
            f"No cluster could be had at {address or 'this machine'}: {error}.",
            "Start it, or mend UNDERSTUDY_RUNNER.",
        ) from error


async def fan_out(
    task: Task[..., Any],
    parts: Iterable[Sequence[Item]],
    arguments: Arguments[Item],
    *,
    give_up: GiveUp | None = None,
) -> list[Any]:
    """Run a task on every part and return the results in order.

    A part whose every attempt ended in a PartialFailure is handed to `give_up`, and its result is None.
    """

    async def work(part: list[Item]) -> Any:
        return await run_shard(task, arguments(part), items=len(part), give_up=give_up)

    return await each(parts, work)


async def each(
    parts: Iterable[Sequence[Item]], work: Callable[[list[Item]], Awaitable[Result]]
) -> list[Result]:
    """Do the work on every part and return the results in order.

    In this process as many parts are at work as keep every call slot taken; a cluster gets them all.
    """
    lists, turn = [list(part) for part in parts], asyncio.Lock()
    places = asyncio.Semaphore(open_shards() if _cluster.get() is None else max(1, len(lists)))

    async def settle(part: list[Item]) -> Result:
        async with places:
            async with turn:
                await asyncio.sleep(PACE)
            return await work(part)

    return list(await asyncio.gather(*map(settle, lists)))


async def run_shard(
    task: Task[..., Any], arguments: Mapping[str, Any], *, items: int, give_up: GiveUp | None = None
) -> Any:
    """Run a task on one shard of so many items, here or on the cluster; None where it was given up."""
    runner = _cluster.get()
    try:
        return await (task(**arguments) if runner is None else _run_there(runner, task, arguments))
    except PartialFailure as failure:
        if give_up is None:
            raise
        give_up(failure)
        if runner is None:
            advance(len(failure.failed))
    finally:
        if runner is not None:
            advance(items)


async def _run_there(runner: TaskRunner[Any], task: Task[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Wait for a shard of the cluster without holding a thread."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_future: PrefectFuture[Any]) -> None:
        loop.call_soon_threadsafe(done.set)

    future: PrefectFuture[Any] = await asyncio.to_thread(runner.submit, task, parameters=dict(arguments))
    future.add_done_callback(tell)
    await done.wait()
    return await asyncio.to_thread(future.result)
