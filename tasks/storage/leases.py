"""Leases: what only one process may work on at a time, given back when it ends or dies.

Does not know what the work is. Whoever waits gets the lease at most `LEASE_SECONDS` after a holder died.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

from agents.errors import StorageError
from tasks.storage.store import Store, patient
from tasks.storage.tables import Lease

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
WAIT_SECONDS = 0.5


@asynccontextmanager
async def leased(store: Store, name: str) -> AsyncIterator[None]:
    """Wait until nobody else holds the lease, then hold it for as long as the block runs."""
    holder = uuid4().hex
    while not await asyncio.to_thread(_take, store, name, holder):  # noqa: ASYNC110  (another process)
        await asyncio.sleep(WAIT_SECONDS)
    with _renewing(store, name, holder):
        yield


@contextmanager
def lease_if_free(store: Store, name: str) -> Iterator[bool]:
    """Hold the lease for the block if nobody else does; tell whether that is so."""
    holder = uuid4().hex
    if not _take(store, name, holder):
        yield False
        return
    with _renewing(store, name, holder):
        yield True


@contextmanager
def lease_when_free(store: Store, name: str) -> Iterator[None]:
    """Wait, blocking the thread, until nobody else holds the lease, then hold it for the block."""
    holder = uuid4().hex
    while not _take(store, name, holder):
        time.sleep(WAIT_SECONDS)
    with _renewing(store, name, holder):
        yield


@patient
def _take(store: Store, name: str, holder: str) -> bool:
    with store.session(write=True) as session:
        lease = session.get(Lease, name)
        if lease is not None and lease.holder != holder and lease.until > time.time():
            return False
        session.merge(Lease(name=name, holder=holder, until=time.time() + LEASE_SECONDS))
    return True


@patient
def _give_back(store: Store, name: str, holder: str) -> None:
    with store.session(write=True) as session:
        lease = session.get(Lease, name)
        if lease is not None and lease.holder == holder:
            session.delete(lease)


@contextmanager
def _renewing(store: Store, name: str, holder: str) -> Iterator[None]:
    """Renew from a thread, since the work may keep the event loop busy for longer than a lease lasts."""
    ended = threading.Event()
    keeper = threading.Thread(target=_renew, args=(store, name, holder, ended), name=f"lease {name}")
    keeper.daemon = True
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        _give_back(store, name, holder)


def _renew(store: Store, name: str, holder: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            _take(store, name, holder)
        except StorageError:
            continue  # the database may be back before the lease runs out
