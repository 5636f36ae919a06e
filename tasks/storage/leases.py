"""Leases: what only one process may work on at a time, given back when it ends or dies.

Does not know what the work is. Whoever waits gets the lease at once where a holder of this machine died,
and at most `LEASE_SECONDS` later where one elsewhere did.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

import psutil

from agents.errors import StorageError
from tasks.storage.store import Store, patient
from tasks.storage.tables import Lease

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
WAIT_SECONDS = 0.5
SAME_START = 1.0  # seconds that two readings of a process' start may differ by


@asynccontextmanager
async def leased(store: Store, name: str) -> AsyncIterator[None]:
    """Wait until nobody else holds the lease, then hold it for as long as the block runs."""
    holder = _new_holder()
    while not await asyncio.to_thread(_take, store, name, holder):  # noqa: ASYNC110  (another process)
        await asyncio.sleep(WAIT_SECONDS)
    with _renewing(store, name, holder):
        yield


@contextmanager
def lease_if_free(store: Store, name: str) -> Iterator[bool]:
    """Hold the lease for the block if nobody else does; tell whether that is so."""
    holder = _new_holder()
    if not _take(store, name, holder):
        yield False
        return
    with _renewing(store, name, holder):
        yield True


@contextmanager
def lease_when_free(store: Store, name: str) -> Iterator[None]:
    """Wait, blocking the thread, until nobody else holds the lease, then hold it for the block."""
    holder = _new_holder()
    while not _take(store, name, holder):
        time.sleep(WAIT_SECONDS)
    with _renewing(store, name, holder):
        yield


def _new_holder() -> str:
    """Return a name that nobody else has, by which others of this machine find whether we live."""
    me = psutil.Process()
    return f"{_machine()}|{me.pid}|{me.create_time()}|{uuid4().hex}"


def _has_died(holder: str) -> bool:
    machine, *process = holder.split("|")
    if machine != _machine():
        return False
    try:
        found = psutil.Process(int(process[0]))
        replaced = abs(found.create_time() - float(process[1])) >= SAME_START
        return replaced or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@cache
def _machine() -> str:
    """Return what names this machine's processes: its name, and on Linux the namespace of their ids."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink() if namespace.is_symlink() else ''}"


@patient
def _take(store: Store, name: str, holder: str) -> bool:
    with store.session(write=True) as session:
        lease = session.get(Lease, name)
        taken = lease is not None and lease.holder != holder and lease.until > time.time()
        if lease is not None and taken and not _has_died(lease.holder):
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
