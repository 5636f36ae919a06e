"""The store: one database, opened, migrated and handed out as short sessions.

Does not know what is asked of it: the queries live beside it, one file a noun.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial, wraps
from itertools import count
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from filelock import FileLock
from sqlalchemy import Connection, Engine, Table, inspect, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, SQLModel

from agents.errors import ConnectionLost, StorageError
from tasks.storage.engines import make_engine, patiently, place, reason, storage_error, with_access
from tasks.storage.gathering import Gathering
from tasks.storage.settings import Settings, make_home, read_settings

SCHEMA = "0003"
P = ParamSpec("P")
Item = TypeVar("Item")
Result = TypeVar("Result")
Identity = tuple[Any, ...]
Values = dict[str, Any]


class Store:
    """A database with today's schema, and the settings it came from."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self._reading = with_access(engine, "read")
        self._adding = with_access(engine, "add")
        self._writing = with_access(engine, "write")
        self._gatherings: WeakKeyDictionary[AbstractEventLoop, dict[str, Gathering[Any, Any]]]
        self._gatherings = WeakKeyDictionary()

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[Session]:
        """Give a session that commits at the end.

        Without `write` it sees one state of the database and cannot change it; with `write` nobody else
        changes anything between its reads and its writes. Raises ConnectionLost when the database went
        away (whether a commit was kept is then unknown), StorageError when it refuses.
        """
        engine = self._writing if write else self._reading
        try:
            with Session(engine, expire_on_commit=False) as session:
                yield session
                session.commit()
        except DBAPIError as error:
            raise storage_error(error, engine) from error

    def object_name(self, path: Path) -> str:
        """Return a file of the object store as rows name it, so that a home can be moved."""
        return path.relative_to(self.settings.objects).as_posix()

    def object_path(self, name: str) -> Path:
        """Return where a file of the object store lies now."""
        return self.settings.objects / name

    def add_new(self, row: SQLModel) -> bool:
        """Insert a row unless one with its identity exists; return whether it was inserted.

        Raises StorageError when the row points to one that is not there, or the database fails.
        """
        return self.add_rows([row])[0]

    async def add_soon(self, table: type[SQLModel], values: Values) -> bool:
        """Insert a row as `add_new` does, together with what other coroutines insert at the same time.

        `values` names every column. Returns when it is committed; the event loop does not wait.
        """
        return await self.gathering("add", self._add).ask((_table(table), values))

    def gathering(
        self, name: str, work: Callable[[Sequence[Item]], Sequence[Result]]
    ) -> Gathering[Item, Result]:
        """Return the batches of a kind of work of the running event loop; `work` runs in a thread."""
        known = self._gatherings.setdefault(asyncio.get_running_loop(), {})
        if name not in known:
            known[name] = Gathering(work)
        return known[name]

    def add_rows(self, rows: Sequence[SQLModel]) -> list[bool]:
        """Insert rows, each as `add_new` does, in one transaction: all of them or none.

        A database that went away is waited for. Returns for each row whether it was inserted.
        """
        return self._add([(_table(type(row)), row.model_dump()) for row in rows])

    def add_values(self, table: type[SQLModel], values: Sequence[Values]) -> list[bool]:
        """Insert rows of one table as `add_rows` does, from dicts that name every column: 50 times faster."""
        target = _table(table)
        return self._add([(target, row) for row in values])

    def _add(self, rows: Sequence[tuple[Table, Values]]) -> list[bool]:
        tries = count()
        return patiently(
            lambda: self._insert(rows, again=next(tries) > 0), seconds=self.settings.database_wait
        )

    def _insert(self, rows: Sequence[tuple[Table, Values]], *, again: bool) -> list[bool]:
        """Insert the rows; `again` when an earlier try may have been committed without our hearing of it."""
        tables: dict[Table, list[Values]] = {}
        for table, values in rows:
            tables.setdefault(table, []).append(values)
        added: set[Identity] = set()
        try:
            with self._adding.begin() as connection:
                for table, found in tables.items():
                    added |= _insert_new(connection, table, found)
                    if again:
                        added |= _there(connection, table, found)
        except IntegrityError as error:
            raise StorageError(
                f"A row of {table.name} was refused: {error.orig}.", "Report it as a defect."
            ) from error
        except DBAPIError as error:
            raise storage_error(error, self.engine) from error
        return [_take(added, _identity(table, values)) for table, values in rows]


def patient(query: Callable[Concatenate[Store, P], Result]) -> Callable[Concatenate[Store, P], Result]:
    """Run a query again, from its start, when its database went away, for as long as the settings say.

    For queries that find their own work done: whether a lost commit was kept is not known.
    """

    @wraps(query)
    def run(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return patiently(partial(query, store, *args, **kwargs), seconds=store.settings.database_wait)

    return run


def _table(row: type[SQLModel]) -> Table:
    table: Table = row.__table__  # type: ignore[attr-defined]
    return table


def _identity(table: Table, row: Mapping[Any, Any]) -> Identity:
    return (table.name, *(row[column.name] for column in table.primary_key))


def _insert_new(connection: Connection, table: Table, values: Sequence[Values]) -> set[Identity]:
    """Insert the rows that are not there and return their identities."""
    on_server = connection.dialect.name == "postgresql"
    insert = postgresql.insert(table) if on_server else sqlite.insert(table)
    statement = insert.on_conflict_do_nothing().returning(*table.primary_key)
    return {(table.name, *key) for key in connection.execute(statement, values)}


def _there(connection: Connection, table: Table, values: Sequence[Values]) -> set[Identity]:
    """Return the identities of the rows that are in the table exactly as given: our own of a try before."""
    ours = {_identity(table, row): row for row in values}
    keys = [identity[1:] for identity in ours]
    found = connection.execute(select(table).where(tuple_(*table.primary_key).in_(keys))).mappings()
    return {key for row in found if dict(row) == ours[key := _identity(table, row)]}


def _take(added: set[Identity], identity: Identity) -> bool:
    """Say whether a row was inserted; of two with one identity the first was."""
    found = identity in added
    added.discard(identity)
    return found


def open_store(settings: Settings | None = None) -> Store:
    """Open the database of the settings (default: the environment's), creating or migrating it.

    Raises StorageError when the home cannot be written or the database cannot be opened.
    """
    settings = settings or read_settings()
    return _open(settings, settings.home.absolute())


@cache
def _open(settings: Settings, _home: Path) -> Store:
    home = make_home(settings)
    engine = make_engine(settings.database)
    # In a file the lock also covers the first connection, which turns a new database to WAL.
    in_file = engine.dialect.name == "sqlite"
    with FileLock(home / ".migrate.lock") if in_file else nullcontext():
        try:
            patiently(partial(_bring_up_to_date, engine), seconds=settings.database_wait)
        except StorageError:
            engine.dispose()
            raise
    return Store(settings, engine)


def _bring_up_to_date(engine: Engine) -> None:
    try:
        if _revision(engine) != SCHEMA:
            _migrate(engine)
    except DBAPIError as error:
        failure = storage_error(error, engine)
        if isinstance(failure, ConnectionLost):
            raise failure from error
        raise StorageError(
            f"The database {place(engine.url)} cannot be opened: {reason(error, engine)}.",
            "Check UNDERSTUDY_DATABASE_URL; a damaged SQLite file can be moved away.",
        ) from error


def _revision(engine: Engine) -> str | None:
    if not inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return revision


def _migrate(engine: Engine) -> None:
    """Bring the database to today's schema in one transaction; of many processes one does it."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with with_access(engine, "write").begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StorageError(
                f"The database has a schema that this release does not know: {error}.",
                "It was made by a newer release: install that one.",
            ) from error
