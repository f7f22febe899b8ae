"""`gyoza db migrate`: once, twice, with the embedded database and with one that is named."""

import psycopg
import pytest

from .stage import Stage


def test_the_embedded_database_is_made_and_migrated_and_a_second_time_nothing_happens(empty_stage: Stage):
    said = []
    for _ in range(2):
        migrate = empty_stage.run("db", "migrate")
        assert migrate.ends() == 0, migrate.said
        said.append(migrate.said.splitlines()[-1])
    assert said[0] == said[1] and said[0].startswith("The database is at step ")
    assert not (empty_stage.data / "postgres" / "postmaster.pid").exists()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_named_database_is_migrated_and_a_second_time_nothing_happens(
    empty_stage: Stage, postgres: str, database_url: str, how: str
):
    name = f"empty_{how}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = database_url.replace(database_url.partition("?")[0].rpartition("/")[2], name, 1)
    options = ("--database-url", url) if how == "option" else ()
    environ = {"GYOZA_DATABASE_URL": url} if how == "environment" else {}
    for _ in range(2):
        migrate = empty_stage.run("db", "migrate", *options, **environ)
        assert migrate.ends() == 0, migrate.said
        assert migrate.said.startswith("The database is at step ")
    assert not empty_stage.data.exists()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
