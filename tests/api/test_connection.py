"""What only a real connection shows: refusals before a body is read, and connections that survive large bodies."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .conftest import KEY, Listening


class Line:
    """One connection, spoken to in raw HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def ask(self, method: str, path: str, body: bytes = b"", *, key: str = KEY) -> tuple[int, Any]:
        await self.send(head(method, path, f"X-API-Key: {key}", f"Content-Length: {len(body)}"))
        await self.send(body)
        return await self.answer()

    async def answer(self) -> tuple[int, Any]:
        async with asyncio.timeout(30):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), json.loads(body)


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: gyoza.test", *headers, "", ""]).encode()


@asynccontextmanager
async def dialled(to: Listening) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection(*to.address)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_beyond_16_megabytes_is_refused_and_the_connection_survives(listening: Listening):
    async with dialled(listening) as line:
        status, run = await line.ask("POST", "/runs", b'{"image": "a"}')
        assert status == 201
        large = b'{"image": "a", "more": "' + b"x" * 40 * 2**20 + b'"}'
        for method, path in (("POST", "/runs"), ("PATCH", f"/runs/{run['id']}"), ("POST", "/definitions")):
            status, problem = await line.ask(method, path, large)
            assert (status, problem["code"]) == (413, "too_large")
        assert (await line.ask("GET", f"/runs/{run['id']}"))[0] == 200


async def test_the_bound_of_a_body_is_16_megabytes_to_the_byte(listening: Listening):
    start, end = b'{"image": "a", "more": "', b'"}'
    room = 16 * 2**20 - len(start) - len(end)
    async with dialled(listening) as line:
        assert (await line.ask("POST", "/runs", start + b"x" * room + end))[0] == 201
        assert (await line.ask("POST", "/runs", start + b"x" * (room + 1) + end))[0] == 413


async def test_a_body_sent_in_chunks_has_the_same_bound(listening: Listening):
    async with dialled(listening) as line:
        await line.send(head("POST", "/runs", f"X-API-Key: {KEY}", "Transfer-Encoding: chunked"))
        for _ in range(17):
            await line.send(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
        await line.send(b"0\r\n\r\n")
        assert (await line.answer())[0] == 413
        assert (await line.ask("GET", "/runs"))[0] == 200


async def test_a_wrong_key_is_refused_before_the_body_is_sent(listening: Listening):
    for key in ("wrong", ""):
        async with dialled(listening) as line:
            await line.send(head("POST", "/runs", f"X-API-Key: {key}", "Content-Length: 1000000"))
            await line.send(b'{"image": ')
            status, problem = await line.answer()
            assert (status, problem["code"]) == (401, "unauthorized")


async def test_a_refused_key_does_not_spoil_the_connection(listening: Listening):
    async with dialled(listening) as line:
        assert (await line.ask("POST", "/runs", b'{"image": "a"}', key="wrong"))[0] == 401
        assert (await line.ask("POST", "/runs", b'{"image": "a"}'))[0] == 201


async def test_a_client_that_hangs_up_in_the_middle_of_a_body_harms_nobody(listening: Listening):
    async with dialled(listening) as line:
        await line.send(head("POST", "/runs", f"X-API-Key: {KEY}", "Content-Length: 1000000"))
        await line.send(b'{"image": ')
    async with dialled(listening) as line:
        status, page = await line.ask("GET", "/runs")
        assert (status, page["data"]) == (200, [])


async def test_what_is_no_http_is_a_problem_too(listening: Listening):
    for nonsense in (b"nonsense\r\n\r\n", "GET /runs/\xe9 HTTP/1.1\r\n\r\n".encode("latin-1")):
        async with dialled(listening) as line:
            await line.send(nonsense)
            status, problem = await line.answer()
            assert (status, problem["code"]) == (400, "bad_request")


async def test_a_body_in_broken_chunks_is_a_problem_too(listening: Listening):
    async with dialled(listening) as line:
        await line.send(head("POST", "/runs", f"X-API-Key: {KEY}", "Transfer-Encoding: chunked"))
        await line.send(b'5\r\n{"ima\r\nzz\r\n')
        status, problem = await line.answer()
        assert (status, problem["code"]) == (400, "bad_request")


async def test_a_wish_for_another_protocol_is_passed_over(listening: Listening):
    for protocol in ("websocket", "h2c"):
        async with dialled(listening) as line:
            await line.send(head("GET", "/health", "Connection: Upgrade", f"Upgrade: {protocol}"))
            assert (await line.answer())[0] == 200


async def test_a_server_that_stops_answers_those_who_wait(listening: Listening):
    resources = b'{"cpu": 1, "ram_mb": 1, "slots": 1}'
    beat = b'{"instance": "i", "seq": 1, "host_id": "h", "resources": ' + resources + b"}"
    claim = b'{"instance": "i", "wait_s": 25}'
    async with dialled(listening) as line, dialled(listening) as other:
        assert (await line.ask("PUT", "/workers/w1", beat))[0] == 200
        await line.send(head("POST", "/workers/w1/claim", f"X-API-Key: {KEY}", f"Content-Length: {len(claim)}") + claim)
        assert (await other.ask("GET", "/workers/w1"))[0] == 200
        listening.stopping.set()
        async with asyncio.timeout(5):
            assert await line.answer() == (200, {"assignments": [], "stop": [], "drain": False})
