"""The way to the database: transactions that try again, connections that die, the database's clock."""

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo

import psycopg
import pytest
from psycopg.errors import CheckViolation, DeadlockDetected

from gyoza.store.database import FROZEN_AFTER_MS, Clock, Connection, Database


async def test_a_transaction_that_fails_leaves_nothing(database: Database):
    async def work(connection: Connection) -> None:
        await connection.execute("CREATE TABLE left_over ()")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.transact(work)
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT to_regclass('left_over')")
        assert await cursor.fetchone() == (None,)


async def test_a_snapshot_shows_one_moment(database: Database):
    async with database.snapshot() as reading, database.connection() as writing:
        assert (await reading.execute("SELECT FROM pg_class WHERE relname = 'later'")).rowcount == 0
        await writing.execute("CREATE TABLE later ()")
        assert (await reading.execute("SELECT FROM pg_class WHERE relname = 'later'")).rowcount == 0
    async with database.connection() as connection:
        assert (await connection.execute("SELECT FROM pg_class WHERE relname = 'later'")).rowcount == 1


async def test_a_deadlock_is_tried_again_until_both_come_through(database: Database):
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE pair AS SELECT n, 0 AS times FROM generate_series(1, 2) n")
    both_hold, tries = asyncio.Barrier(2), [0, 0]

    async def both_rows(me: int) -> None:
        async def work(connection: Connection) -> None:
            tries[me] += 1
            await connection.execute("SET LOCAL deadlock_timeout = '10ms'")
            await connection.execute("UPDATE pair SET times = times + 1 WHERE n = %s", [me + 1])
            if tries[me] == 1:
                await both_hold.wait()
            await connection.execute("UPDATE pair SET times = times + 1 WHERE n = %s", [2 - me])

        await database.transact(work)

    await asyncio.gather(both_rows(0), both_rows(1))
    assert sum(tries) > 2
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT times FROM pair")
        assert await cursor.fetchall() == [(2,), (2,)]


async def test_a_deadlock_without_end_is_given_up(shelf: Database):
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        raise DeadlockDetected

    with pytest.raises(DeadlockDetected):
        await shelf.transact(work)
    assert tries == 5


async def test_what_the_database_ended_while_the_process_froze_is_tried_again(database: Database):
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("CREATE TABLE made ()")
        if tries == 1:
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 1")
            await ended(connection.info.backend_pid)
        await connection.execute("SELECT FROM made")

    async def ended(pid: int) -> None:
        async with asyncio.timeout(10), database.connection() as other:
            while (await other.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid])).rowcount:
                await asyncio.sleep(0.01)

    await database.transact(work)
    assert tries == 2


async def test_other_errors_are_not_tried_again(shelf: Database):
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        raise CheckViolation

    with pytest.raises(CheckViolation):
        await shelf.transact(work)
    assert tries == 1


async def test_connections_that_were_terminated_are_replaced(database: Database, postgres: str):
    assert await database.is_ready()
    with psycopg.connect(postgres, autocommit=True) as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = %s",
            [psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]],
        ).fetchall()
    assert len(ended) >= 2
    for _ in range(4):
        async with database.connection() as connection:
            await connection.execute("SELECT 1")
    assert await database.is_ready()


async def test_a_database_that_is_gone_is_not_ready(postgres: str, database_url: str):
    async with Database(database_url) as database:
        assert await database.is_ready()
        with psycopg.connect(postgres, autocommit=True) as other:
            name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            other.execute("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = %s", [name])
            assert not await database.is_ready()
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


async def test_a_transaction_of_a_frozen_process_is_ended_so_that_it_blocks_nobody(shelf: Database):
    async with shelf.connection() as connection:
        cursor = await connection.execute("SHOW idle_in_transaction_session_timeout")
        assert await cursor.fetchone() == ("3s",)
    assert FROZEN_AFTER_MS == "3000"


async def test_times_come_in_utc_and_ids_as_the_text_that_clients_know(shelf: Database):
    async with shelf.connection() as connection:
        cursor = await connection.execute(
            "SELECT '2026-01-02 03:04:05.000006+05'::timestamptz, '01890000-0000-7000-8000-00000000000A'::uuid"
        )
        assert await cursor.fetchone() == (
            datetime(2026, 1, 1, 22, 4, 5, 6, tzinfo=UTC),
            "01890000-0000-7000-8000-00000000000a",
        )


async def test_the_clock_is_the_database_s(shelf: Database):
    clock = Clock()
    async with shelf.connection() as connection:
        await clock.sync(connection)
        cursor = await connection.execute("SELECT clock_timestamp()")
        row = await cursor.fetchone()
    assert row is not None
    assert abs(clock.now() - row[0]) < timedelta(seconds=2)


class Stepped(datetime):
    """This machine's clock, set forward."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + timedelta(hours=2)


async def test_a_clock_that_is_set_on_this_machine_changes_nothing(shelf: Database, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    before = clock.now()
    monkeypatch.setattr("gyoza.store.database.datetime", Stepped)
    assert before < clock.now() < before + timedelta(minutes=1)
    async with shelf.connection() as connection:
        await clock.sync(connection)
    assert clock.now() < before + timedelta(minutes=1)
