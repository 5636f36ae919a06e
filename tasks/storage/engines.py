"""Connecting: what SQLite and PostgreSQL each need so that the store's promises hold on both.

Does not know any table or query. A transaction says what it is for: `read` sees one state of the database
and changes nothing, `add` inserts rows, `write` reads and changes while nobody else changes anything.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import cache
from itertools import chain, repeat
from logging import getLogger
from typing import Any, Literal, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from agents.errors import ConnectionLost, StorageError
from tasks.storage.settings import POSTGRESQL, Settings

Access = Literal["read", "add", "write"]
Result = TypeVar("Result")
SQLITE = ("sqlite", "sqlite+pysqlite")
LOCK = 0x756E_6465_7273  # "unders": the advisory lock of this product in a database that others use too
LOCKS = {"add": "pg_advisory_xact_lock_shared", "write": "pg_advisory_xact_lock"}
# A machine that vanished must not hold a lock for the hours that TCP would wait for it.
SESSION = "SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '60s'"
NETWORK = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# What asking again cannot mend: said by the server when it refuses a connection.
REFUSED = ("authentication failed", "does not exist", "pg_hba.conf", "no password supplied", "not permitted")
SHUT_DOWN = ("08", "57P01", "57P02", "57P03")  # SQLSTATE: connection exceptions, shutdown, crash, starting up
PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.0)


def make_engine(url: str) -> Engine:
    """Return an engine for a URL; raise StorageError when no database of ours can be behind it."""
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, ValueError) as error:
        raise StorageError(
            "UNDERSTUDY_DATABASE_URL is not a database URL.",
            "Write it like postgresql://user:password@host:5432/database, special characters as %XX.",
        ) from error
    except ImportError as error:
        raise StorageError(
            f"The driver of the database is not installed: {error}.",
            "For PostgreSQL: pip install 'understudy[postgres]'.",
        ) from error
    if engine.url.drivername in SQLITE:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.url.drivername == POSTGRESQL:
        event.listen(engine, "do_connect", _complete_postgresql)
        event.listen(engine, "connect", _prepare_postgresql)
        event.listen(engine, "begin", _begin_postgresql)
    else:
        raise StorageError(
            f"UNDERSTUDY_DATABASE_URL names {engine.url.drivername!r}, which is not supported.",
            "Use postgresql:// or sqlite:///.",
        )
    return engine


def with_access(engine: Engine, access: Access) -> Engine:
    """Return the engine for transactions of one kind."""
    options: dict[str, Any] = {"access": access}
    if access == "read" and engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return engine.execution_options(**options)


def place(url: URL) -> str:
    """Return a database's URL for people to read, without its password."""
    return url.render_as_string(hide_password=True)


def home_name(settings: Settings) -> str:
    """Return what names a home to people: its database, and for a file the machine too."""
    url = make_url(settings.database)
    return f"{url.database} on {socket.gethostname()}" if url.drivername in SQLITE else place(url)


def storage_error(error: DBAPIError, engine: Engine) -> StorageError:
    """Return a database's error as ours: ConnectionLost where asking again may help."""
    said = reason(error, engine)
    if _is_lost(error, said):
        return ConnectionLost(
            f"The database {place(engine.url)} does not answer: {said}.",
            "Start it, or mend UNDERSTUDY_DATABASE_URL; then run the same command again: nothing was lost.",
        )
    return StorageError(
        f"The database {place(engine.url)} did not take it: {said}.",
        "Check its space and permissions, then run the same command again: nothing was lost.",
    )


def reason(error: DBAPIError, engine: Engine) -> str:
    """Return what the database said, without its password."""
    said = str(error.orig).strip().rstrip(".")
    return said.replace(str(engine.url.password), "***") if engine.url.password else said


def _is_lost(error: DBAPIError, said: str) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(SHUT_DOWN)
    if type(error.orig).__module__.startswith("sqlite3"):
        return False
    refused = any(words in said for words in REFUSED)
    return error.connection_invalidated or (type(error.orig).__name__ == "OperationalError" and not refused)


def patiently(action: Callable[[], Result], *, seconds: float) -> Result:
    """Do something again, from its start, while the database does not answer, for so many seconds.

    Raises the last ConnectionLost when it never did.
    """
    deadline, pauses = time.monotonic() + seconds, chain(PAUSES, repeat(PAUSES[-1]))
    for tries, pause in enumerate(pauses):
        try:
            return action()
        except ConnectionLost as lost:
            if time.monotonic() + pause > deadline:
                raise
            if tries == 1:
                getLogger(__name__).warning("%s Waiting for it up to %.0f s.", lost.message, seconds)
        time.sleep(pause)
    raise AssertionError("the pauses never end")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not at a first write
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    access = connection.get_execution_options().get("access")
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if access == 'read' else 'OFF'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if access in LOCKS else "BEGIN")


def _complete_postgresql(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
    parameters.update({name: value for name, value in NETWORK.items() if name not in parameters})


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    connection.adapters.register_dumper(str, _text_dumper())
    connection.autocommit = True
    connection.execute(SESSION)
    connection.autocommit = False


@cache
def _text_dumper() -> type[Any]:
    """Return what writes texts for PostgreSQL, which hold every character but NUL; models may say it."""
    from psycopg.types.string import StrDumper

    class TextDumper(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))

    return TextDumper


def _begin_postgresql(connection: Connection) -> None:
    access = connection.get_execution_options().get("access")
    if access in LOCKS:
        connection.exec_driver_sql(f"SELECT {LOCKS[access]}({LOCK})")
