"""What watching costs: nobody who is idle asks the database anything, and one event is read once for all."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from gyoza.server import watching as watchers

from .actors import Json, submit, told
from .conftest import KEY, Listening
from .streams import Interpreter, Stream, noted, path_of, rows, watching
from .test_connection import head

MANY = 2000


class Asked(list[str]):
    """The statements by which the feed and the events of runs are read, and runs looked at for those who watch."""

    READING = ("FROM feed", "FROM events", "JOIN events", "SELECT state, next_event FROM runs")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Asked:
    statements, ours = Asked(), conninfo_to_dict(database_url)["dbname"]
    execute = psycopg.AsyncConnection.execute

    async def counting(self: Any, query: Any, *args: Any, **how: Any) -> Any:
        text = " ".join(str(query).split())
        if self.info.dbname == ours and any(part in text for part in Asked.READING):
            statements.append(text)
        return await execute(self, query, *args, **how)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counting)
    return statements


@pytest.fixture
async def crowd(alone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Stream]]:
    """200 who watch: 20 runs each, and all of them by filters."""
    monkeypatch.setattr(watchers, "HEARTBEAT_S", 0.3)
    runs = [await submit(alone) for _ in range(20)]
    paths: list[Any] = [(path_of(runs[n % 20]), {}) for n in range(100)]
    paths += [("/events/stream", {"type": kind}) for kind in ("INFO", "ERROR") for _ in range(50)]
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watching(alone, path, **params)) for path, params in paths]
        await asyncio.gather(*(stream.beats() for stream in streams))
        yield streams


async def test_who_watches_and_hears_nothing_asks_nothing(asked: Asked, crowd: list[Stream]):
    asked.clear()
    await asyncio.gather(*(stream.beats(3) for stream in crowd))
    assert len(asked) <= 2, "the tail looks by itself now and then, whoever watches"


async def test_one_event_is_read_once_however_many_watch(asked: Asked, crowd: list[Stream], alone: httpx.AsyncClient):
    run = await submit(alone)
    async with AsyncExitStack() as stack:
        more = [await stack.enter_async_context(watching(alone, path_of(run))) for _ in range(100)]
        await asyncio.gather(*(stream.beats() for stream in more))
        asked.clear()
        told(await alone.post(f"/runs/{run['id']}/cancel"))
        seen = await asyncio.gather(*(stream.rest() for stream in more))
        assert {len(each) for each in seen} == {2}
    of_watchers = [text for text in asked if "WHERE run_id = %s AND attempt = %s" not in text]
    assert 2 <= len(of_watchers) <= 5, of_watchers


async def test_nobody_watches_and_nothing_is_read(asked: Asked, alone: httpx.AsyncClient):
    run = await submit(alone)
    await noted(alone, run, *"abc")
    async with watching(alone, "/events/stream", after=0) as stream:
        await stream.take(3)
    await noted(alone, run, *"abc")
    asked.clear()
    await noted(alone, run, *"abc")
    async with watching(alone, "/events/stream", after=0) as stream:
        before = [text for text in asked if "SELECT pos" in text]
        await stream.take(9)
    assert len(before) <= 1


class Watcher:
    """One of many: a bare socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer, self.said = reader, writer, Interpreter()

    async def hears(self) -> Json:
        """Its next event."""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = (await self.reader.readexactly(size + 2))[:-2].decode()
            for each in self.said.read(chunk):
                return each.json


async def test_2000_watchers_of_one_server_all_hear_of_an_event(listening: Listening, capsys: Any):
    host, port = listening.address
    headers = {"X-API-Key": KEY}
    before, process = gc.collect(), psutil.Process()
    before = process.memory_info().rss
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", headers=headers) as client, asyncio.timeout(100):
        run = await submit(client)
        paths = (path_of(run), "/events/stream", "/events/stream?type=INFO", "/events/stream?type=ERROR&type=INFO")

        async def join(n: int) -> Watcher:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(head("GET", paths[n % 4], f"X-API-Key: {KEY}"))
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            watcher = Watcher(reader, writer)
            while b"heartbeat" not in (await reader.readuntil(b"\n")):
                pass
            await reader.readuntil(b"\r\n")
            return watcher

        since = monotonic()
        crowd: list[Watcher] = []
        for n in range(0, MANY, 100):
            crowd += await asyncio.gather(*(join(m) for m in range(n, n + 100)))
        joined_s = monotonic() - since
        grown_mb = (process.memory_info().rss - before) / 2**20
        for msg in ("first", "second"):
            since = monotonic()
            await noted(client, run, msg)
            heard = await asyncio.gather(*(watcher.hears() for watcher in crowd))
            took_s = monotonic() - since
            assert {row["msg"] for row in heard} == {msg}
        listening.stopping.set()
        since = monotonic()
        await asyncio.gather(*(watcher.reader.read() for watcher in crowd))
        ended_s = monotonic() - since
        for watcher in crowd:
            watcher.writer.close()
        await asyncio.gather(*(watcher.writer.wait_closed() for watcher in crowd))
    with capsys.disabled():
        print(
            f"\n{MANY} watchers, both ends of each in this process: {grown_mb:.0f} MB, joined in {joined_s:.1f} s, "
            f"told in {took_s:.2f} s, ended in {ended_s:.1f} s"
        )
    assert grown_mb < 500
    assert took_s < 10
    assert ended_s < 20


async def test_open_streams_end_when_the_server_stops(listening: Listening):
    host, port = listening.address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", headers={"X-API-Key": KEY}) as client:
        run = await submit(client)
        waiting = asyncio.create_task(client.get(f"/runs/{run['id']}/wait", timeout=30))
        async with watching(client, path_of(run)) as stream, watching(client, "/events/stream") as all_runs:
            await stream.beats()
            await all_runs.beats()
            await noted(client, run, "last words")
            assert rows(await stream.take(1)) and rows(await all_runs.take(1))
            listening.stopping.set()
            async with asyncio.timeout(5):
                assert await stream.rest() == await all_runs.rest() == []
                answer = await waiting
        assert json.loads(answer.content)["state"] == "PENDING"
