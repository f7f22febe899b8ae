"""Logs while they are written: followed over real connections, and over two servers; in constant memory."""

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gyoza.client import AsyncGyozaClient, Conflict
from gyoza.control import logs
from gyoza.server.app import create_app, running
from gyoza.server.context import Context
from gyoza.server.settings import Settings
from gyoza.store import logs as store

from .actors import Json, Worker, event, in_state, submit, told
from .conftest import KEY, Listening, client_of

MB = 2**20


@pytest.fixture
async def online(listening: Listening) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real socket, which sees an answer while it is being written."""
    host, port = listening.address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", headers={"X-API-Key": KEY}, timeout=30) as client:
        yield client


async def taken_up(api: httpx.AsyncClient, name: str = "w1") -> tuple[Worker, Json]:
    one = await Worker(api, name).registered()
    await submit(api)
    held = await one.assignment()
    await one.report(held, event("STARTED"))
    return one, held


class Follower:
    """One who follows a log; `log` is what has come so far."""

    def __init__(self, answer: httpx.Response):
        self.log = bytearray()
        self._parts = answer.aiter_raw()

    async def has(self, log: bytes) -> None:
        """Waits until so much has come; the bell brings it long before a follower looks by itself."""
        async with asyncio.timeout(10):
            while len(self.log) < len(log):
                self.log += await anext(self._parts)
        assert self.log == log

    async def end(self) -> bytes:
        async with asyncio.timeout(10):
            async for part in self._parts:
                self.log += part
        return bytes(self.log)


@asynccontextmanager
async def followed(api: httpx.AsyncClient, run_id: str, **query: Any) -> AsyncIterator[Follower]:
    async with api.stream("GET", f"/runs/{run_id}/logs", params={"follow": "true", **query}) as answer:
        assert answer.status_code == 200
        yield Follower(answer)


async def test_a_follower_gets_what_is_written_as_it_is_written_and_then_the_end(online: httpx.AsyncClient):
    one, held = await taken_up(online)
    await one.log(held, b"before ", 0)
    async with followed(online, held["run_id"]) as follower, followed(online, held["run_id"], offset=3) as late:
        await follower.has(b"before ")
        log = b"before "
        for part in (b"x", b"y" * 100_000, b"\xff\x00", b"z" * 3 * MB):
            told(await one.log(held, part, len(log)))
            log += part
            await follower.has(log)
        await one.report(held, event("COMPLETED"))
        told(await one.log(held, b" after", len(log)))
        await follower.has(log + b" after")
        await one.report(held, settled=True)
        assert await follower.end() == log + b" after"
        assert await late.end() == (log + b" after")[3:]


async def test_our_own_client_sends_reads_and_follows(online: httpx.AsyncClient):
    one, held = await taken_up(online)
    run_id, lease, log = held["run_id"], held["lease_token"], bytearray()
    async with AsyncGyozaClient(str(online.base_url), KEY) as client:
        answer = await client.put_logs(run_id, 1, b"hello ", offset=0, lease_token=lease)
        with pytest.raises(Conflict) as gap:
            await client.put_logs(run_id, 1, b"world", offset=7, lease_token=lease)
        assert gap.value.problem["offset"] == answer["offset"] == 6
        async with asyncio.timeout(10):
            async for part in client.follow_logs(run_id):
                log += part
                if log == b"hello ":
                    await client.put_logs(run_id, 1, b"world", offset=6, lease_token=lease)
                    await one.report(held, event("COMPLETED"), settled=True)
        assert log == await client.get_logs(run_id, 1) == b"hello world"


async def test_a_follower_of_what_waits_sees_it_start(online: httpx.AsyncClient):
    run = await submit(online)
    async with followed(online, run["id"]) as follower:
        one = await Worker(online, "w1").registered()
        held = await one.assignment()
        await one.log(held, b"here", 0)
        await follower.has(b"here")


async def test_a_follower_of_what_nobody_ever_held_ends_with_it(online: httpx.AsyncClient):
    over = await in_state(online, "FAILED")
    async with followed(online, over["id"]) as follower:
        assert await follower.end() == b""
    waiting = await submit(online)
    async with followed(online, waiting["id"]) as follower:
        told(await online.post(f"/runs/{waiting['id']}/cancel"))
        assert await follower.end() == b""


async def test_a_follower_stays_with_its_attempt(online: httpx.AsyncClient):
    one, held = await taken_up(online)
    async with followed(online, held["run_id"]) as follower:
        await one.log(held, b"first", 0)
        await one.report(held, event("FAILED"), settled=True)
        told(await online.post(f"/runs/{held['run_id']}/retry"))
        await one.log(await one.assignment(), b"second", 0)
        assert await follower.end() == b"first"


async def test_a_follower_of_what_a_lost_worker_held_does_not_wait_for_it(online: httpx.AsyncClient):
    _, held = await taken_up(online)
    async with followed(online, held["run_id"]) as follower:
        assert (await online.delete("/workers/w1")).status_code == 204
        assert await follower.end() == b""


async def test_a_follower_of_a_log_that_was_cut_ends_with_the_attempt(online: httpx.AsyncClient):
    one, held = await taken_up(online)
    async with followed(online, held["run_id"]) as follower:
        for n in range(5):
            answer = told(await one.log(held, b"a" * 16 * MB, n * 16 * MB))
        assert answer == {"offset": 80 * MB, "cut": True}
        await one.report(held, event("COMPLETED"), settled=True)
        log = await follower.end()
    assert log.startswith(b"a" * 64 * MB) and log.count(b"[gyoza: the log was cut here") == 1
    assert len(log) < 64 * MB + 100


async def test_a_server_that_stops_lets_its_followers_go(online: httpx.AsyncClient, listening: Listening):
    one, held = await taken_up(online)
    await one.log(held, b"so far", 0)
    async with followed(online, held["run_id"]) as follower:
        await follower.has(b"so far")
        listening.stopping.set()
        async with asyncio.timeout(5):
            assert await follower.end() == b"so far"


async def test_a_part_that_breaks_off_on_its_way_is_not_kept(online: httpx.AsyncClient, listening: Listening):
    one, held = await taken_up(online)
    await one.log(held, b"before", 0)
    _, writer = await asyncio.open_connection(*listening.address)
    head = (
        f"PUT /runs/{held['run_id']}/attempts/1/logs?offset=6 HTTP/1.1",
        f"Host: x\r\nX-API-Key: {KEY}\r\nGyoza-Lease: {held['lease_token']}\r\nContent-Length: 100\r\n\r\nhalf",
    )
    writer.write("\r\n".join(head).encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert told(await one.log(held, b" after", 6)) == {"offset": 12, "cut": False}
    assert (await online.get(f"/runs/{held['run_id']}/logs")).content == b"before after"


async def test_who_hangs_up_is_waited_for_no_longer(server: Context):
    """The ASGI application itself: it returns, and nobody listens to the bell any more."""
    async with client_of(server) as api:
        one, held = await taken_up(api)
        await one.log(held, b"some", 0)
    some, waiters = asyncio.Event(), server.bell._waiters
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": f"/runs/{held['run_id']}/logs",
        "raw_path": b"",
        "query_string": b"follow=true",
        "headers": [(b"x-api-key", KEY.encode())],
        "client": None,
        "server": None,
        "scheme": "http",
    }

    async def receive() -> Any:
        await some.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            assert f"log:{held['run_id']}" in waiters
            some.set()

    async with asyncio.timeout(10):
        await create_app(server, KEY)(scope, receive, send)
    assert some.is_set() and f"log:{held['run_id']}" not in waiters


async def test_a_log_written_through_one_server_is_followed_through_another(database_url: str, tmp_path: Path):
    settings = Settings(data_dir=tmp_path / "data")
    async with (
        running(settings, database_url, asyncio.Event()) as first,
        running(settings, database_url, asyncio.Event()) as second,
        client_of(first) as api,
        client_of(second) as other,
    ):
        one, held = await taken_up(api)
        reading = await logs.follow(second.database, second.shelf, second.bell, held["run_id"], None, 0)
        log = b""
        for part in (b"one", b"two" * 50_000, b"three"):
            told(await one.log(held, part, len(log)))
            log += part
            async with asyncio.timeout(10):
                came = await anext(reading.parts)
            assert log.endswith(came)
        following = asyncio.create_task(other.get(f"/runs/{held['run_id']}/logs?follow=true&offset=1"))
        await one.report(held, event("COMPLETED"), settled=True)
        async with asyncio.timeout(10):
            assert (await following).content == log[1:]
            assert [part async for part in reading.parts] == []


async def test_a_follower_without_a_bell_looks_by_itself(server: Context, monkeypatch: pytest.MonkeyPatch):
    async def silence(*_: Any) -> None:
        pass

    monkeypatch.setattr(logs, "LOOK_AGAIN_S", 0.1)
    async with client_of(server) as api:
        one, held = await taken_up(api)
        await one.log(held, b"loud", 0)
        reading = await logs.follow(server.database, server.shelf, server.bell, held["run_id"], None, 0)
        assert await anext(reading.parts) == b"loud"
        with monkeypatch.context() as mute:
            mute.setattr(logs, "ring", silence)
            await one.log(held, b"quiet", 4)
            async with asyncio.timeout(10):
                assert await anext(reading.parts) == b"quiet"
        await reading.parts.aclose()


async def test_chunks_that_are_joined_under_a_reader_do_not_trouble_it(server: Context):
    """It looked up a chunk, and before it reads that, the bytes are part of another one."""
    async with client_of(server) as api:
        one, held = await taken_up(api)
        await one.log(held, b"one ", 0)
        joins = iter([b"two ", b"three "])

        class Slow:
            """A shelf on which something happens before each reading."""

            async def read(self, name: str, start: int = 0) -> bytes:
                if part := next(joins, b""):
                    log = (await api.get(f"/runs/{held['run_id']}/logs")).content
                    told(await one.log(held, part, len(log)))
                return await server.shelf.read(name, start)

        reading = await logs.read(server.database, Slow(), held["run_id"], None, 0)  # type: ignore[arg-type]
        assert [part async for part in reading.parts] == [b"one "]
        assert (await api.get(f"/runs/{held['run_id']}/logs")).content == b"one two three "


async def test_a_large_log_is_sent_in_constant_memory(online: httpx.AsyncClient):
    one, held = await taken_up(online)
    part = random.Random(3).randbytes(16 * MB)
    for n in range(4):
        told(await one.log(held, part, n * 16 * MB))
    del part
    tracemalloc.start()
    try:
        before, came = tracemalloc.get_traced_memory()[0], 0
        async with online.stream("GET", f"/runs/{held['run_id']}/logs") as answer:
            async for data in answer.aiter_raw():
                came += len(data)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert came == 64 * MB
    assert peak < 12 * MB, f"{peak / MB:.1f} MB"


async def test_logs_are_forgotten_with_their_bytes(server: Context, tmp_path: Path):
    async with client_of(server) as api:
        one, held = await taken_up(api)
        await one.log(held, b"forget me", 0)
        other = await submit(api)
        kept = await one.assignment(held)
        await one.log(kept, b"keep me", 0)

        async def work(connection: Any) -> None:
            await store.forget(connection, [held["run_id"]], server.database.clock.now())

        for _ in range(2):
            await server.database.transact(work)
            await logs.discard(server.database, server.shelf, server.database.clock.now())
        answer = await api.get(f"/runs/{held['run_id']}/logs")
        assert (answer.content, answer.headers["gyoza-log-size"]) == (b"", "0")
        assert (await api.get(f"/runs/{other['id']}/logs")).content == b"keep me"
    left = [path for path in (tmp_path / "data" / "files" / "logs").rglob("*") if path.is_file()]
    assert [path.parent.parent.name for path in left] == [kept["run_id"]]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "data" / "files").rglob("*") if path.is_dir())
