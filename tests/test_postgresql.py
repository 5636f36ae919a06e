"""PostgreSQL going away: what waiting can mend is waited for, the rest is said, and never the password."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from postgresql import PASSWORD, PostgresServer, postgres_server
from sqlmodel import func, select

from agents.errors import ConnectionLost, StorageError
from tasks.storage.calls import call_totals
from tasks.storage.drafts import claim_run
from tasks.storage.settings import Settings
from tasks.storage.store import Store, open_store, patient
from tasks.storage.tables import Conversation


@pytest.fixture(scope="module")
def server():
    with postgres_server() as found:
        yield found


@pytest.fixture
def store(server: PostgresServer, tmp_path: Path):
    found = open_store(Settings(home=tmp_path, database_url=server.new_database()))
    yield found
    found.engine.dispose()


def conversation(name: str) -> Conversation:
    return Conversation(id=name, persona="jamie", category="c", source="s", messages="[]")


def end_connections(server: PostgresServer, store: Store) -> int:
    """Have the server end every connection to a store's database; return how many there were."""
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
    return len(server.query(server.address("postgres"), ended.format(store.engine.url.database)))


def test_a_plain_url_works(server: PostgresServer, tmp_path: Path) -> None:
    for scheme in ("postgresql", "postgres"):
        url = server.new_database().replace("postgresql+psycopg", scheme)
        store = open_store(Settings(home=tmp_path / scheme, database_url=url))
        assert call_totals(store).calls == 0
        store.engine.dispose()


def test_a_text_with_nul_is_kept_with_another_character_for_it(store: Store) -> None:
    row = conversation("a").model_copy(update={"messages": "x\0y"})
    assert store.add_new(row)
    assert not store.add_new(row)
    with store.session(write=True) as session:
        (kept,) = session.exec(select(Conversation)).all()
        assert kept.messages == "x\N{REPLACEMENT CHARACTER}y"
        kept.category = "\0"
        session.add(kept)


def test_dropped_connections_are_made_again(server: PostgresServer, store: Store) -> None:
    for name in "abc":
        assert store.add_new(conversation(name))
        assert end_connections(server, store) >= 1
    assert call_totals(store).calls == 0


def test_a_connection_that_is_lost_in_a_query_is_made_again(server: PostgresServer, store: Store) -> None:
    tries = []

    @patient
    def keep(found: Store) -> int:
        with found.session(write=True) as session:
            session.add(conversation("a"))
            session.flush()
            tries.append(1)
            if len(tries) == 1:
                end_connections(server, found)
        return len(tries)

    assert keep(store) == 2
    assert store.add_new(conversation("a")) is False


def test_rows_are_inserted_once_while_the_server_is_killed_and_started(
    server: PostgresServer, store: Store
) -> None:
    names = [str(number) for number in range(300)]
    with ThreadPoolExecutor(8) as writers:
        added = [writers.submit(store.add_new, conversation(name)) for name in names]
        for at in (50, 150):
            added[at].result()
            server.kill()
            server.start()
        assert all(future.result() for future in added)
    with store.session() as session:
        assert session.exec(select(func.count()).select_from(Conversation)).one() == len(names)


def test_a_killed_process_holds_no_lock(server: PostgresServer, store: Store) -> None:
    code = (
        "from tasks.storage.store import open_store\n"
        "with open_store().session(write=True) as session:\n"
        "    session.connection()\n"
        "    print('locked', flush=True)\n"
        "    input()\n"
    )
    url = store.settings.database_url
    environment = {**os.environ, "UNDERSTUDY_HOME": str(store.settings.home), "UNDERSTUDY_DATABASE_URL": url}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)
    assert holder.stdout.readline() == "locked\n"
    with ThreadPoolExecutor(1) as other:
        claimed = other.submit(claim_run, store, "x", "jamie", "{}")
        holder.kill()
        holder.communicate()
        assert claimed.result().name == "x"


def test_a_server_that_stays_away_is_said_after_the_wait(tmp_path: Path) -> None:
    with postgres_server() as server:
        url = server.new_database()
        store = open_store(Settings(home=tmp_path, database_url=url, database_wait=0.3))
        server.kill()
        for action in (lambda: call_totals(store), lambda: store.add_new(conversation("a"))):
            with pytest.raises(ConnectionLost, match="does not answer") as error:
                action()
            assert PASSWORD not in str(error.value)
        store.engine.dispose()
        with pytest.raises(ConnectionLost, match="UNDERSTUDY_DATABASE_URL"):
            open_store(Settings(home=tmp_path / "new", database_url=url, database_wait=0.3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace(PASSWORD, "wrong-" + PASSWORD), "authentication failed"),
        (lambda url: url + "_missing", "does not exist"),
        (lambda url: url.replace("127.0.0.1", "127.0.0.1:nonsense"), "not a database URL"),
        (lambda url: url.replace("postgresql+psycopg", "mysql+pymysql"), "driver"),
        (lambda url: "nonsense " + PASSWORD, "not a database URL"),
    ],
)
def test_what_waiting_cannot_mend_is_said_at_once(
    server: PostgresServer, tmp_path: Path, change, said: str
) -> None:
    url = change(server.new_database())
    with pytest.raises(StorageError, match=said) as error:
        open_store(Settings(home=tmp_path, database_url=url, database_wait=3600))
    assert not isinstance(error.value, ConnectionLost)
    assert PASSWORD not in str(error.value)
    assert PASSWORD not in repr(Settings(database_url=url))


def test_a_newer_schema_is_named(server: PostgresServer, tmp_path: Path) -> None:
    url = server.new_database()
    open_store(Settings(home=tmp_path, database_url=url)).engine.dispose()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="newer release"):
        open_store(Settings(home=tmp_path / "other", database_url=url))
