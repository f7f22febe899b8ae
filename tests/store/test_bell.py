"""The bell: a hint after each commit that concerns somebody, over a connection that may be lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gyoza.store import bell as bells
from gyoza.store.bell import Bell, Ear, ring
from gyoza.store.database import Database

PROMPTLY_S = 5


@pytest.fixture
async def bell(shelf_url: str) -> AsyncIterator[Bell]:
    async with Bell(shelf_url) as bell:
        yield bell


async def rung(database: Database, *topics: str) -> None:
    async with database.connection() as connection:
        await ring(connection, topics)


async def silent(ear: Ear) -> bool:
    """Whether nothing has rung, which a ring of another topic sent afterwards proves."""
    return not await ear.wait(0.05)


async def test_a_ring_wakes_those_who_wait_for_it_and_nobody_else(shelf: Database, bell: Bell):
    with bell.heard("w1") as one, bell.heard("w1") as two, bell.heard("w2") as other:
        await rung(shelf, "w1")
        assert await one.wait(PROMPTLY_S)
        assert await two.wait(PROMPTLY_S)
        assert await silent(other)


async def test_several_topics_ring_at_once(shelf: Database, bell: Bell):
    with bell.heard("w1") as one, bell.heard(bells.QUEUE) as queue:
        await rung(shelf, "w1", bells.QUEUE, "w1")
        assert await one.wait(PROMPTLY_S)
        assert await queue.wait(PROMPTLY_S)


async def test_it_rings_when_the_transaction_commits_and_not_before(shelf: Database, bell: Bell):
    with bell.heard("w1") as ear:
        async with shelf.connection() as connection:
            async with connection.transaction():
                await ring(connection, ["w1"])
                assert await silent(ear)
            assert await ear.wait(PROMPTLY_S)


async def test_what_is_rolled_back_does_not_ring(shelf: Database, bell: Bell):
    with bell.heard("w1") as ear, bell.heard("w2") as proof:
        async with shelf.connection() as connection, connection.transaction(force_rollback=True):
            await ring(connection, ["w1"])
        await rung(shelf, "w2")
        assert await proof.wait(PROMPTLY_S)
        assert await silent(ear)


async def test_no_topics_do_not_ring(shelf: Database, bell: Bell):
    with bell.heard("w1") as ear, bell.heard("w2") as proof:
        await rung(shelf)
        await rung(shelf, "w2")
        assert await proof.wait(PROMPTLY_S)
        assert await silent(ear)


async def test_more_topics_than_a_message_holds_wake_everybody(shelf: Database, bell: Bell):
    with bell.heard("w1") as ear:
        await rung(shelf, *(f"worker-with-a-long-name-{n}" for n in range(1000)))
        assert await ear.wait(PROMPTLY_S)


async def test_what_rings_before_one_waits_is_heard_all_the_same_and_once(shelf: Database, bell: Bell):
    with bell.heard("w1") as ear, bell.heard("w1") as proof:
        await rung(shelf, "w1")
        assert await proof.wait(PROMPTLY_S)
        assert await ear.wait(PROMPTLY_S)
        assert await silent(ear)


async def test_an_ear_that_does_not_wait_is_told_that_it_rang_and_once(shelf: Database, bell: Bell):
    ear = bell.ear(bells.KEYS)
    with bell.heard("proof") as proof:
        assert not ear.rang()
        await rung(shelf, "other", "proof")
        assert await proof.wait(PROMPTLY_S)
        assert not ear.rang()
        await rung(shelf, bells.KEYS, "proof")
        assert await proof.wait(PROMPTLY_S)
        assert ear.rang()
        assert not ear.rang()


async def test_a_name_with_any_characters_may_be_rung(shelf: Database, bell: Bell):
    with bell.heard('wörker "1", \\ []') as ear:
        await rung(shelf, 'wörker "1", \\ []')
        assert await ear.wait(PROMPTLY_S)


async def test_whoever_waits_is_released_when_the_time_is_over(bell: Bell):
    with bell.heard("w1") as ear:
        assert not await ear.wait(0.01)
        assert not await ear.wait(0)
        assert not await ear.wait(-1)


async def test_a_bell_that_closes_releases_all_who_wait_and_lets_nobody_wait_again(bell: Bell):
    with bell.heard("w1") as one, bell.heard("w2") as other:
        waiting = [asyncio.create_task(ear.wait(60)) for ear in (one, other)]
        await asyncio.sleep(0)
        bell.close()
        assert await asyncio.wait_for(asyncio.gather(*waiting), PROMPTLY_S) == [False, False]
        assert not await one.wait(60)


async def test_after_a_lost_connection_it_listens_anew_and_wakes_everybody_once(
    shelf: Database, bell: Bell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """What rang in between is unknown: everybody looks for himself."""
    monkeypatch.setattr(bells, "_RECONNECT_S", 0.01)
    with bell.heard("w1") as one, bell.heard("w2") as other:
        assert await listeners_ended(shelf) == 1
        assert await one.wait(PROMPTLY_S)
        assert await other.wait(PROMPTLY_S)
        await rung(shelf, "w1")
        assert await one.wait(PROMPTLY_S)
        assert await silent(other)
    assert "lost its connection" in caplog.text


async def listeners_ended(database: Database) -> int:
    query = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND datname = current_database() AND pid <> pg_backend_pid()
        """
    async with database.connection() as connection:
        cursor = await connection.execute(query.encode())
        return len(await cursor.fetchall())


@pytest.mark.parametrize("text", ["hello", '{"a": 1}', "3"])
async def test_a_message_of_somebody_else_wakes_everybody_and_the_bell_goes_on(shelf: Database, bell: Bell, text: str):
    with bell.heard("w1") as ear:
        async with shelf.connection() as connection:
            await connection.execute("SELECT pg_notify('gyoza', %s)", [text])
        assert await ear.wait(PROMPTLY_S)
        await rung(shelf, "w1")
        assert await ear.wait(PROMPTLY_S)
