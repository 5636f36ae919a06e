"""The store: one database, opened, migrated and handed out as short sessions.

Does not know what is asked of it: the queries live beside it, one file a noun.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlmodel import Session, SQLModel, create_engine

from agents.errors import StorageError
from tasks.storage.settings import Settings, make_home

SCHEMA = "0001"
Row = TypeVar("Row", bound=SQLModel)


class Store:
    """A database with today's schema, and the settings it came from."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[Session]:
        """Give a session that commits at the end; raise StorageError when the database fails.

        With `write` nobody else changes anything between its reads and its writes (SQLite would let them).
        """
        engine = self.engine.execution_options(write=write)
        try:
            with Session(engine, expire_on_commit=False) as session:
                yield session
                session.commit()
        except DBAPIError as error:
            raise StorageError(
                f"The database did not take the change: {error.orig}.",
                f"Check space and permissions of {self.engine.url.render_as_string(hide_password=True)}.",
            ) from error

    def object_name(self, path: Path) -> str:
        """Return a file of the object store as rows name it, so that a home can be moved."""
        return path.relative_to(self.settings.objects).as_posix()

    def object_path(self, name: str) -> Path:
        """Return where a file of the object store lies now."""
        return self.settings.objects / name

    def add_new(self, row: Row) -> bool:
        """Insert a row unless one with its identity exists; return whether it was inserted.

        Raises StorageError when the row points to one that is not there, or the database fails.
        """
        try:
            with Session(self.engine, expire_on_commit=False) as session:
                session.add(row)
                session.commit()
        except IntegrityError as error:
            if not any(word in str(error.orig).lower() for word in ("unique", "duplicate")):
                raise StorageError(
                    f"A row of {row.__tablename__} was refused: {error.orig}.", "Report it as a defect."
                ) from error
            return False
        except DBAPIError as error:
            raise StorageError(
                f"The database did not take a new row of {row.__tablename__}: {error.orig}.",
                "Free space, then run the same command again: nothing was lost.",
            ) from error
        return True


def open_store(settings: Settings | None = None) -> Store:
    """Open the database of the settings (default: the environment's), creating or migrating it.

    Raises StorageError when the home cannot be written or the database cannot be opened.
    """
    settings = settings or Settings()
    return _open(settings, settings.home.absolute())


@cache
def _open(settings: Settings, _home: Path) -> Store:
    home = make_home(settings)
    try:
        engine = create_engine(settings.database)
    except (ArgumentError, ImportError) as error:
        raise StorageError(
            f"UNDERSTUDY_DATABASE_URL cannot be used: {error}.",
            "Write it as SQLAlchemy does, and install the driver that it names.",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        # The lock also covers the first connection, which turns a new SQLite file to WAL.
        with FileLock(home / ".migrate.lock"):
            if _revision(engine) != SCHEMA:
                _migrate(engine)
    except DBAPIError as error:
        raise StorageError(
            f"The database {engine.url.render_as_string(hide_password=True)} cannot be opened: {error.orig}.",
            "Check UNDERSTUDY_DATABASE_URL; a damaged SQLite file can be moved away.",
        ) from error
    return Store(settings, engine)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not at a first write
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _revision(engine: Engine) -> str | None:
    if not inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return revision


def _migrate(engine: Engine) -> None:
    """Bring the database to today's schema, one revision after the other."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StorageError(
                f"The database has a schema that this release does not know: {error}.",
                "It was made by a newer release: install that one.",
            ) from error
