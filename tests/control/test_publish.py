"""Into the feed: every event once, a run's in their order, at positions that become visible in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest

from gyoza.control import publish
from gyoza.control.append import append
from gyoza.control.leadership import Deposed
from gyoza.models.lifecycle import EventType as E
from gyoza.policy.life import Happening
from gyoza.server.loops import Leading
from gyoza.store import feed, leader, outbox
from gyoza.store.database import Connection, Database
from gyoza.store.feed import Position

from .stage import COMPLETED, PACE, STARTED, Cluster, Still, failed, said, turn

BLOCKED_S = 0.2


def note(n: int = 0) -> Happening:
    return Happening(E.INFO, str(n))


async def published(cluster: Cluster, after: int = 0) -> list[Position]:
    async with cluster.database.connection() as connection:
        return await feed.positions(connection, after, 100_000)


async def newest(cluster: Cluster) -> int:
    async with cluster.database.connection() as connection:
        return await feed.newest(connection)


@pytest.fixture
async def other(stage_url: str) -> AsyncIterator[Connection]:
    """Another way to the database."""
    async with Database(stage_url) as database, database.connection() as connection:
        yield connection


late = other


async def test_what_happens_is_published_once_and_in_its_order(cluster: Cluster):
    held = await cluster.running()
    await cluster.tell(held, 2, note(), Happening(E.PROGRESS, 5), COMPLETED, settled=True)
    assert await published(cluster) == []
    assert await cluster.publish() == 5
    positions = await published(cluster)
    assert [(position.run_id, position.n) for position in positions] == [(held.run_id, n) for n in range(5)]
    assert await cluster.publish() == 0
    assert await published(cluster) == positions


async def test_a_batch_of_reports_keeps_the_order_of_each_run(cluster: Cluster):
    held = [await cluster.running(attempts=2) for _ in range(10)]
    await cluster.tell_all(*(said(each, seq, note(), note()) for seq in (2, 3) for each in held))
    await cluster.tell_all(*(said(each, 4, note(), failed()) for each in held))
    await cluster.publish()
    positions = await published(cluster)
    for each in held:
        assert [position.n for position in positions if position.run_id == each.run_id] == list(range(9))


async def test_one_transaction_publishes_no_more_than_its_bound_and_the_next_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publish, "BATCH", 2)
    held = await cluster.running()
    await cluster.tell(held, 2, note(), note(), note())
    assert [await cluster.publish() for _ in range(4)] == [2, 2, 1, 0]
    assert [position.n for position in await published(cluster)] == list(range(5))


async def test_what_is_rolled_back_is_not_published(cluster: Cluster):
    held = await cluster.running()
    await cluster.publish()
    assert not (await cluster.tell(held, 2, note(), STARTED)).ok
    assert await cluster.publish() == 0


async def test_only_the_leader_publishes(cluster: Cluster):
    await cluster.running()
    with pytest.raises(Deposed):
        await publish.publish(cluster.database, cluster.epoch - 1)
    assert await published(cluster) == []


async def test_what_commits_late_is_published_late_and_not_lost(cluster: Cluster, other: Connection):
    """It has taken its position in the outbox before others that are published already."""
    slow, quick = await cluster.submit(), await cluster.submit()
    async with other.transaction():
        await other.execute("INSERT INTO outbox (run_id, n) VALUES (%s, 0)", [slow])
        await append(cluster.database, quick, note(), cluster.now)
        assert await cluster.publish() == 1
    assert await cluster.publish() == 1
    assert [position.run_id for position in await published(cluster)] == [quick, slow]


async def test_a_second_transaction_of_one_leader_waits_for_the_first(
    cluster: Cluster, other: Connection, late: Connection, monkeypatch: pytest.MonkeyPatch
):
    """The answer to a COMMIT was lost, and the leader publishes anew while PostgreSQL is still at it.

    The two would not meet over a row: what the second would publish committed after the first had looked.
    """
    slow, quick = await cluster.submit(), await cluster.submit()
    monkeypatch.setattr(publish, "BATCH", 1)
    async with other.transaction():
        async with late.transaction():
            await late.execute("INSERT INTO outbox (run_id, n) VALUES (%s, 0)", [slow])
            await append(cluster.database, quick, note(), cluster.now)
            await leader.check(other, cluster.epoch)
            assert await outbox.publish(other, 1) == 1
        again = asyncio.create_task(cluster.publish())
        done, _ = await asyncio.wait([again], timeout=BLOCKED_S)
        assert not done
        assert await published(cluster) == []
    assert await asyncio.wait_for(again, 5) == 1
    assert [position.run_id for position in await published(cluster)] == [quick, slow]


async def test_positions_that_a_frozen_leader_took_are_never_seen(cluster: Cluster, other: Connection):
    """It freezes before its COMMIT, is ended by the database, and is followed by a leader that publishes higher."""
    run_id = await cluster.submit()
    await append(cluster.database, run_id, note(), cluster.now)
    with pytest.raises(psycopg.Error):
        async with other.transaction():
            await leader.check(other, cluster.epoch)
            assert await outbox.publish(other, 100) == 1
            cursor = await other.execute("SELECT max(pos) FROM feed")
            taken = (await cursor.fetchone() or [0])[0]
            await other.execute("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
            frozen = cluster.epoch
            await asyncio.wait_for(cluster.lead_anew(), 10)
            assert await cluster.publish() == 1
            assert await published(cluster, after=taken) == [Position(taken + 1, run_id, 0)]
            await other.execute("SELECT 1")
    with pytest.raises(Deposed):
        await publish.publish(cluster.database, frozen)
    assert [position.n for position in await published(cluster)] == [0]


async def test_whoever_reads_beyond_the_last_position_misses_nothing_while_leaders_come_and_go(
    cluster: Cluster, stage_url: str
):
    """Writers, three servers that take the lead from each other, and a reader that never looks back."""
    run_ids, writing, seen = [await cluster.submit() for _ in range(8)], asyncio.Event(), list[Position]()

    async def write(run_id: str) -> None:
        for n in range(40):
            await append(cluster.database, run_id, note(n), cluster.now)

    async def serve(database: Database, name: str) -> None:
        leading = Leading(database, PACE, name)
        while not writing.is_set():
            with suppress(Deposed):
                await turn(leading)

    async def unrest() -> None:
        while not writing.is_set():
            await cluster.ask("UPDATE leader SET expires_at = clock_timestamp() - interval '1 ms'")
            await asyncio.sleep(0.01)

    async def read() -> None:
        last = await newest(cluster)
        while len(seen) < 8 * 40:
            fresh = await published(cluster, last)
            seen.extend(fresh)
            last = fresh[-1].pos if fresh else last

    async def everything_written() -> None:
        await asyncio.gather(*(write(run_id) for run_id in run_ids))
        writing.set()

    databases = [Database(stage_url, clock=Still()) for _ in range(3)]
    async with databases[0], databases[1], databases[2]:
        others = [asyncio.create_task(serve(database, f"server-{n}")) for n, database in enumerate(databases)]
        others.append(asyncio.create_task(unrest()))
        async with asyncio.timeout(60):
            reading = asyncio.create_task(read())
            await everything_written()
            await asyncio.gather(*others)
            await cluster.lead_anew()
            await cluster.publish()
            await reading
    for run_id in run_ids:
        assert [position.n for position in seen if position.run_id == run_id] == list(range(40))
    assert [position.pos for position in seen] == sorted({position.pos for position in seen})
