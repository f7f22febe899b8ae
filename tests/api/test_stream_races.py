"""Two servers, many writers, watchers that drop and come back, leaders that go: each event once and in order."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from gyoza.server.app import running
from gyoza.server.settings import Settings

from .actors import Json, submit, told, until
from .conftest import client_of
from .streams import Interpreter, Told, noted, path_of, rows, watching

WRITERS, NOTES = 8, 30


@dataclass
class Servers:
    """Those that are up now. Clients take any of them, and another one when theirs stops."""

    url: str
    folder: Path
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    started: list[tuple[asyncio.Event, AsyncExitStack]] = field(default_factory=list)

    async def start(self) -> None:
        stopping, stack = asyncio.Event(), AsyncExitStack()
        context = await stack.enter_async_context(running(Settings(data_dir=self.folder), self.url, stopping))
        self.clients.append(await stack.enter_async_context(client_of(context)))
        self.started.append((stopping, stack))

    async def stop(self, number: int = 0) -> None:
        """As SIGTERM does: who leads resigns, open streams end."""
        stopping, stack = self.started.pop(number)
        client = self.clients.pop(number)
        stopping.set()
        await asyncio.gather(*client._transport.answering)  # type: ignore[attr-defined]
        await stack.aclose()

    async def lose_leader(self) -> None:
        """As SIGKILL does: nobody resigns. Another one leads for a second and publishes nothing."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute(
                "UPDATE leader SET epoch = epoch + 1, holder = 'gone', expires_at = now() + interval '1 s'"
            )

    def any(self) -> httpx.AsyncClient:
        return random.choice(self.clients)


@pytest.fixture
async def servers(database_url: str, tmp_path: Path) -> AsyncIterator[Servers]:
    servers = Servers(database_url, tmp_path)
    for _ in range(2):
        await servers.start()
    yield servers
    while servers.started:
        await servers.stop()


async def everything(servers: Servers, path: str, number: int, last: str | None, **params: str) -> list[Told]:
    """So many events, by as many connections as it takes: each is dropped after a few."""
    seen: list[Told] = []
    while len(seen) < number:
        with suppress(StopAsyncIteration, httpx.RemoteProtocolError):  # its server stops
            async with watching(servers.any(), path, last, **params) as stream:
                for _ in range(random.randint(1, 12)):
                    if len(seen) < number:
                        seen.append(await anext(stream))
                        last = seen[-1].last_id
    return seen


async def test_no_event_is_missed_or_told_twice_whoever_comes_and_goes(servers: Servers):
    runs = [await submit(servers.any()) for _ in range(4)]

    async def write(writer: int) -> None:
        for n in range(NOTES):
            await noted(servers.clients[-1], runs[writer % 4], f"{writer}.{n}")

    async def unrest() -> None:
        for turn in range(3):
            await asyncio.sleep(0.3)
            await (servers.stop() if turn % 2 else servers.lose_leader())
            while len(servers.clients) < 2:
                await servers.start()

    of_run = WRITERS * NOTES // 4
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        all_runs = [everything(servers, "/events/stream", WRITERS * NOTES, "0") for _ in range(6)]
        each_run = [everything(servers, path_of(run), of_run, None) for run in runs]
        found = [group.create_task(watcher) for watcher in (*all_runs, *each_run)]
        for others in (unrest(), *(write(writer) for writer in range(WRITERS))):
            group.create_task(others)
    of_all, of_each = [rows(each.result()) for each in found[:6]], [rows(each.result()) for each in found[6:]]
    for seen in of_all:
        assert seen == of_all[0]
        assert [row["pos"] for row in seen] == sorted({row["pos"] for row in seen})
    for run, seen in zip(runs, of_each, strict=True):
        assert [row["id"] for row in seen] == list(range(of_run))
        in_all = [row for row in of_all[0] if row["run_id"] == run["id"]]
        assert [(row["id"], row["msg"]) for row in in_all] == [(row["id"], row["msg"]) for row in seen]
        assert {row["msg"] for row in seen} == {row["msg"] for row in told(await history(servers, run))["events"]}


async def history(servers: Servers, run: Json) -> httpx.Response:
    return await servers.any().get(f"/runs/{run['id']}/events")


async def test_what_happens_at_one_server_is_told_at_the_other_at_once(servers: Servers):
    one, other = servers.clients
    run = await submit(one)
    async with watching(other, path_of(run)) as stream, watching(other, "/events/stream") as all_runs:
        await stream.beats()
        await all_runs.beats()
        async with asyncio.timeout(3):
            await noted(one, run, "a")
            assert rows(await stream.take(1))[0]["msg"] == rows(await all_runs.take(1))[0]["msg"] == "a"


async def test_whoever_waits_at_one_server_hears_of_an_end_at_the_other(servers: Servers):
    one, other = servers.clients
    run = await submit(one)
    waiting = asyncio.create_task(other.get(f"/runs/{run['id']}/wait"))
    async with watching(other, path_of(run)) as stream:
        await stream.beats()
    told(await one.post(f"/runs/{run['id']}/cancel"))
    assert told(await asyncio.wait_for(waiting, 10))["state"] == "CANCELLED"


async def test_while_nobody_leads_nothing_is_lost_and_a_run_s_stream_catches_up(servers: Servers):
    run = await submit(servers.any())
    async with watching(servers.any(), path_of(run)) as stream:
        await stream.beats()
        await servers.lose_leader()
        await noted(servers.any(), run, "a", "b")
        async with watching(servers.any(), path_of(run)) as fresh:  # which need not wait for a leader
            assert [row["msg"] for row in rows(await fresh.take(2))] == ["a", "b"]
        assert [row["msg"] for row in rows(await stream.take(2))] == ["a", "b"]


async def test_a_tail_that_nobody_watches_rests_and_begins_anew_without_a_gap(servers: Servers):
    run, client = await submit(servers.any()), servers.clients[0]
    tail = client._transport.app.state.context.tail  # type: ignore[attr-defined]
    for turn in range(3):
        assert await until(lambda: resting(tail))
        async with watching(client, "/events/stream") as stream:
            await stream.beats()
            await noted(servers.clients[1], run, "a", "b")
            assert [row["id"] for row in rows(await stream.take(2))] == [3 * turn, 3 * turn + 1]
        await noted(client, run, "unheard")


async def resting(tail: object) -> bool:
    return tail.position is None  # type: ignore[attr-defined]


def test_the_reader_of_these_tests_knows_the_specification():
    """The examples of its section on parsing, and what is between its lines."""
    said = Interpreter()
    text = ": a comment\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n"
    assert said.read(text) == [
        Told("message", "first", "1"),
        Told("message", "second", ""),
        Told("message", " third", ""),
    ]
    assert said.read("data: YHOO\r\ndata: +2\rdata\nevent: x\n\n") == [Told("x", "YHOO\n+2\n", "")]
    assert said.read("id: 7\n\n") == []
    assert (said.last_id, said.comments) == ("7", ["a comment"])
