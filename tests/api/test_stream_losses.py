"""Who is slow, and what is lost on the way: streams go on without a gap."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from gyoza.control import feed
from gyoza.control.feed import Entry
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.run import EventEntry
from gyoza.server import tail
from gyoza.server import watching as watchers
from gyoza.server.app import running
from gyoza.server.context import Context
from gyoza.server.settings import Settings
from gyoza.server.sse import News
from gyoza.store import feed as store
from gyoza.store.database import Database

from .actors import Json, say, submit, told, until
from .conftest import client_of
from .streams import ids, noted, path_of, rows, watching

SAID = "(%s, 0, 1, 'INFO', now(), '\"said\"')"


async def test_who_does_not_read_is_left_behind_and_misses_nothing(
    alone: httpx.AsyncClient, server: Context, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tail, "FULL", 5000)
    run = await submit(alone)
    async with watching(alone, path_of(run)) as slow, watching(alone, "/events/stream", after=0) as slow_too:
        await slow.beats()
        await slow_too.beats()
        async with watching(alone, path_of(run)) as quick:
            for n in range(100):
                await noted(alone, run, f"{n} " + "x" * 1000)
                await quick.take(1)
        assert all(watch.behind for watch in watches(server.tail))
        assert await ids(slow, 100) == await ids(slow_too, 100) == list(range(100))
        await noted(alone, run, "and on")
        assert await ids(slow, 1) == await ids(slow_too, 1) == [100]
        await asyncio.wait_for(caught_up(server.tail), 10)


def watches(of: tail.Tail) -> set[tail.Watch]:
    return {watch for some in of._watches.values() for watch in some}


async def caught_up(of: tail.Tail) -> None:
    while any(watch.behind for watch in watches(of)):
        await asyncio.sleep(0.01)


async def test_what_needs_many_pages_to_catch_up_with_is_told_whole(
    alone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(feed, "PAGE", 2)
    run = await submit(alone)
    for n in range(9):
        told(await say(alone, run, "ERROR" if n in (0, 7) else "INFO", str(n)))
    narrowed = {"type": "ERROR", "after": 0}
    async with (
        watching(alone, path_of(run)) as stream,
        watching(alone, "/events/stream", after=0) as all_runs,
        watching(alone, "/events/stream", **narrowed) as errors,
    ):
        assert await ids(stream, 9) == await ids(all_runs, 9) == list(range(9))
        assert await ids(errors, 2) == [0, 7]
        told(await say(alone, run, "ERROR", "9"))
        assert await ids(stream, 1) == await ids(all_runs, 1) == await ids(errors, 1) == [9]


async def test_what_is_handed_out_while_one_reads_what_was_is_not_missed(
    alone: httpx.AsyncClient, server: Context, monkeypatch: pytest.MonkeyPatch
):
    run, read = await submit(alone), watchers.OfCluster.read

    async def slow(self: watchers.OfCluster, database: Database, position: int) -> Any:
        found = await read(self, database, position)
        before = server.tail.position or 0
        await noted(alone, run, "meanwhile")
        await until(lambda: beyond(server.tail, before))
        return found

    monkeypatch.setattr(watchers.OfCluster, "read", slow)
    await noted(alone, run, "before")
    async with watching(alone, "/events/stream", after=0) as stream:
        assert [row["msg"] for row in rows(await stream.take(2))] == ["before", "meanwhile"]


async def test_whoever_begins_now_misses_nothing_of_what_the_tail_is_just_reading(
    alone: httpx.AsyncClient, server: Context, monkeypatch: pytest.MonkeyPatch
):
    """The tail has chosen what it reads, by what was watched then, and not read it yet."""
    watched, other = await submit(alone), await submit(alone)
    chosen, go_on, entries = asyncio.Event(), asyncio.Event(), store.entries

    async def slow(*args: Any) -> Any:
        chosen.set()
        await go_on.wait()
        return await entries(*args)

    async with watching(alone, path_of(watched)) as stream:
        await stream.beats()
        monkeypatch.setattr(store, "entries", slow)
        async with server.database.connection() as connection, connection.transaction():
            for run in (other, watched):
                await connection.execute(
                    "INSERT INTO events (run_id, n, attempt, type, t, msg) VALUES " + SAID, [run["id"]]
                )
                await connection.execute("INSERT INTO outbox (run_id, n) VALUES (%s, 0)", [run["id"]])
                await connection.execute("UPDATE runs SET next_event = 1 WHERE id = %s", [run["id"]])
            await connection.execute("SELECT pg_notify('gyoza', '[\"outbox\"]')")
        await asyncio.wait_for(chosen.wait(), 10)
        monkeypatch.setattr(store, "entries", entries)
        async with watching(alone, "/events/stream") as all_runs:
            try:
                seen = rows(await all_runs.take(2))
            finally:
                go_on.set()
            assert [row["run_id"] for row in seen] == [other["id"], watched["id"]]
            await noted(alone, watched, "and on")
            assert await ids(all_runs, 1) == [1]
        assert await ids(stream, 2) == [0, 1]


async def test_what_comes_at_once_leaves_nobody_behind_who_has_nothing_to_take(
    alone: httpx.AsyncClient, server: Context, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tail, "FULL", 1)
    run = await submit(alone)
    async with watching(alone, path_of(run)) as stream:
        await stream.beats()
        read, asked = feed.page_of_run, list[int]()

        async def counted(database: Database, run_id: str, after: int) -> Any:
            asked.append(after)
            return await read(database, run_id, after)

        monkeypatch.setattr(feed, "page_of_run", counted)
        for n in range(3):
            await noted(alone, run, "x" * 1000)
            assert await ids(stream, 1) == [n]
        assert asked == []


async def beyond(of: tail.Tail, position: int) -> bool:
    return (of.position or 0) > position


async def test_what_is_missing_from_the_feed_is_read_from_the_run(alone: httpx.AsyncClient, database: Database):
    """As an older server writes it, while a newer one runs already: into the run's events, and not into the outbox."""
    run = await submit(alone)
    async with watching(alone, path_of(run)) as stream:
        await stream.beats()
        async with database.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO events (run_id, n, attempt, type, t, msg) VALUES " + SAID, [run["id"]]
            )
            await connection.execute("UPDATE runs SET next_event = 1 WHERE id = %s", [run["id"]])
        await noted(alone, run, "published")
        assert [row["msg"] for row in rows(await stream.take(2))] == ["said", "published"]


async def test_a_stream_outlives_the_loss_of_every_connection_to_the_database(
    alone: httpx.AsyncClient, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watchers, "AGAIN_S", 0.05)
    run = await submit(alone)
    async with watching(alone, path_of(run)) as stream, watching(alone, "/events/stream", after=0) as all_runs:
        for n in range(3):
            await noted(alone, run, f"before {n}")
            assert await ids(stream, 1) == await ids(all_runs, 1) == [2 * n]
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await noted(alone, run, f"after {n}")
            assert await ids(stream, 1) == await ids(all_runs, 1) == [2 * n + 1]


async def test_a_look_that_finds_no_database_is_repeated_while_the_stream_stays_open(
    alone: httpx.AsyncClient, server: Context, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watchers, "AGAIN_S", 0.01)
    monkeypatch.setattr(watchers, "HEARTBEAT_S", 0.05)
    run = await submit(alone)
    await noted(alone, run, "a", "b")
    connection, away = Database.connection, True

    def refusing(self: Database) -> Any:
        if self is server.database and away and asyncio.current_task() in streaming:
            raise psycopg.OperationalError("away")
        return connection(self)

    streaming: set[Any] = set()
    stream_of_run = watchers.stream_of_run

    async def marked(*args: Any) -> AsyncIterator[bytes]:
        streaming.add(asyncio.current_task())
        async for text in stream_of_run(*args):
            yield text

    monkeypatch.setattr(watchers, "stream_of_run", marked)
    monkeypatch.setattr(Database, "connection", refusing)
    async with watching(alone, path_of(run)) as stream:
        await stream.beats(3)
        away = False
        assert await ids(stream, 2) == [0, 1]


async def test_a_server_that_starts_anew_goes_on_where_the_other_ended(database_url: str, tmp_path: Path):
    settings, seen, last = Settings(data_dir=tmp_path / "data"), list[int](), 0
    run: Json = {}
    for turn in range(4):
        stopping = asyncio.Event()
        async with running(settings, database_url, stopping) as context, client_of(context) as client:
            run = run or await submit(client)
            async with watching(client, "/events/stream", last_id=last) as stream:
                await noted(client, run, *"abcde")
                seen += await ids(stream, 3 if turn < 3 else 20 - len(seen))
                stopping.set()  # of the others it may be told as well, or not
                seen += [row["id"] for row in rows(await stream.rest())]
                last = int(stream.said.last_id)
    assert seen == list(range(20))


@pytest.mark.parametrize("moment", range(8))
async def test_what_is_handed_out_at_the_moment_when_the_time_is_over_is_not_left_lying(moment: int):
    run_id = "01890000-0000-7000-8000-000000000000"
    said = EventEntry(0, EventType.INFO, datetime.now(UTC), "")
    entry = News(Entry(1, run_id, None, (), said, OpRunState.PENDING, True))
    watch = tail.Watch(tail.Interest())
    watch.behind = False
    taking = asyncio.create_task(watch.take(0))
    for _ in range(moment):
        await asyncio.sleep(0)
    watch.hand([entry], 1)
    over = taking.done()
    assert await taking == ([] if over else [entry])
