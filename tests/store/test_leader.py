"""The leader's row, as two servers fight for it."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from gyoza.store import leader
from gyoza.store.database import Connection, Database
from gyoza.store.leader import Deposed


@pytest.fixture
async def one(shelf: Database) -> AsyncIterator[Connection]:
    async with shelf.connection() as connection:
        await connection.execute("UPDATE leader SET expires_at = '-infinity'")
        yield connection


async def lapse(connection: Connection, seconds: float = 0) -> None:
    """The lease ends in so many seconds."""
    await connection.execute("UPDATE leader SET expires_at = clock_timestamp() + make_interval(secs => %s)", [seconds])


async def lapsed(connection: Connection) -> None:
    async with asyncio.timeout(5):
        while True:
            cursor = await connection.execute("SELECT expires_at < clock_timestamp() FROM leader")
            if await cursor.fetchone() == (True,):
                return


async def test_the_first_to_campaign_leads_and_nobody_else_while_it_does(one: Connection):
    epoch = await leader.campaign(one, "a")
    assert epoch is not None
    assert await leader.campaign(one, "b") is None
    assert await leader.campaign(one, "a") is None
    await leader.check(one, epoch)


async def test_every_leadership_has_an_epoch_of_its_own(one: Connection):
    first = await leader.campaign(one, "a")
    await lapse(one)
    second = await leader.campaign(one, "b")
    assert first is not None
    assert second == first + 1
    assert not await leader.renew(one, first)
    with pytest.raises(Deposed):
        await leader.check(one, first)
    await leader.check(one, second)


async def test_a_lease_that_ran_out_is_not_renewed_even_if_nobody_took_over(one: Connection):
    epoch = await leader.campaign(one, "a")
    assert epoch is not None
    assert await leader.renew(one, epoch)
    await lapse(one)
    assert not await leader.renew(one, epoch)
    with pytest.raises(Deposed):
        await leader.check(one, epoch)


async def test_resigning_is_only_for_the_leader(one: Connection):
    epoch = await leader.campaign(one, "a")
    assert epoch is not None
    await leader.resign(one, epoch - 1)
    await leader.check(one, epoch)
    await leader.resign(one, epoch)
    assert await leader.campaign(one, "b") == epoch + 1


async def test_nobody_takes_over_before_the_leader_s_transaction_ends(one: Connection, shelf: Database):
    epoch = await leader.campaign(one, "a")
    assert epoch is not None
    await lapse(one, 0.1)
    async with shelf.connection() as other:
        async with one.transaction():
            await leader.check(one, epoch)
            await lapsed(other)
            campaign = asyncio.create_task(leader.campaign(other, "b"))
            done, _ = await asyncio.wait([campaign], timeout=0.1)
            assert not done
        assert await asyncio.wait_for(campaign, 5) == epoch + 1


async def test_a_leader_that_froze_in_a_transaction_is_ended_and_can_write_no_more(shelf_url: str, shelf: Database):
    async with Database(shelf_url) as frozen, shelf.connection() as other:
        await lapse(other)
        with pytest.raises(psycopg.Error):
            async with frozen.connection() as connection, connection.transaction():
                epoch = await leader.campaign(other, "a")
                assert epoch is not None
                await lapse(other, 0.1)
                await leader.check(connection, epoch)
                await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
                await lapsed(other)
                assert await asyncio.wait_for(leader.campaign(other, "b"), 5) == epoch + 1
                await connection.execute("SELECT 1")
