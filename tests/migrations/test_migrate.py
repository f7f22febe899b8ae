"""Bringing a database to the shape that the program expects, and what is said where that cannot be."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gyoza.models.errors import StartUpError
from gyoza.store import schema
from gyoza.store.schema import migrate

NEWEST = "0003"
TABLES = {
    *("cluster", "leader", "definitions", "revisions", "workers", "runs", "run_tags", "attempts", "events", "files"),
    *("outbox", "feed", "logs", "log_chunks", "log_discards", "keys", "idempotency", "alembic_version"),
}


@pytest.fixture
def empty_url(postgres: str) -> Iterator[str]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty_one")
    yield make_conninfo(postgres, dbname="empty_one")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP DATABASE empty_one WITH (FORCE)")


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def refusal(url: str) -> str:
    """The one sentence with which a migration is refused."""
    with pytest.raises(StartUpError) as refused:
        migrate(url)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_an_empty_database_gets_every_table(empty_url: str):
    assert migrate(empty_url) == NEWEST
    tables = {name for (name,) in ask(empty_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert tables == TABLES


def test_migrating_again_changes_nothing_and_keeps_the_data(empty_url: str):
    migrate(empty_url)
    cluster = ask(empty_url, "SELECT id FROM cluster")
    assert migrate(empty_url) == NEWEST
    assert ask(empty_url, "SELECT id FROM cluster") == cluster


def test_servers_that_start_at_once_migrate_once(empty_url: str):
    with ThreadPoolExecutor(4) as servers:
        assert list(servers.map(migrate, [empty_url] * 4)) == [NEWEST] * 4
    assert ask(empty_url, "SELECT count(*) FROM cluster") == [(1,)]


def test_a_migration_that_fails_leaves_nothing(empty_url: str):
    ask(empty_url, "CREATE TABLE files (mine text)")
    assert 'relation "files" already exists' in refusal(empty_url)
    tables = {name for (name,) in ask(empty_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert tables == {"files"}


def test_a_database_of_a_newer_program_is_refused(empty_url: str):
    migrate(empty_url)
    ask(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    said = refusal(empty_url)
    assert "newer than this program" in said
    assert "'9999'" in said or "9999" in said
    assert ask(empty_url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_server_that_is_too_old_is_refused():
    connection = Mock()
    connection.info.server_version = 140012
    with pytest.raises(StartUpError, match="The database is PostgreSQL 14: Gyoza needs 15 or newer"):
        schema._check_version(connection)
    connection.info.server_version = 150001
    schema._check_version(connection)


def test_a_user_that_may_not_create_tables_is_told_so(empty_url: str, postgres: str):
    ask(empty_url, "DROP ROLE IF EXISTS guest")
    ask(empty_url, "CREATE ROLE guest LOGIN")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGOPTIONS", "-c role=guest")
            assert "permission denied" in refusal(empty_url)
    finally:
        ask(postgres, "DROP ROLE guest")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dbname": "no_such"}, 'database "no_such" does not exist'),
        ({"user": "no_such"}, "no_such"),
        ({"host": "/nowhere"}, "/nowhere"),
        ({"host": "127.0.0.1", "port": "1"}, "Connection refused"),
    ],
    ids=str,
)
def test_a_wrong_address_is_one_sentence_that_says_what_to_do(postgres: str, wrong: dict[str, str], says: str):
    said = refusal(make_conninfo(**{**conninfo_to_dict(postgres), **wrong}))
    assert says in said
    assert "GYOZA_DATABASE_URL" in said


@pytest.mark.parametrize("url", ["nonsense", "postgresql://host:port/x", "sqlite:///gyoza.db", "postgresql://[::1"])
def test_what_is_no_address_is_one_sentence_that_says_what_to_do(url: str):
    assert "GYOZA_DATABASE_URL" in refusal(url)
