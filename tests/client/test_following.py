"""Following a log through whatever a network does: every byte once, on the sync and on the async client."""

import inspect
import socket
import threading
from typing import Any

import pytest

from gyoza.client import GyozaUnreachable, NotFound, NotGyoza, following

from .wire import serving

BREAK = -5
"""How many bytes more than were sent an answer promises: it breaks off."""


def answer(
    log: bytes, *, ended: bool = False, breaks: bool = False, status: str = "200 OK", named: bool = True
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(log) - (BREAK if breaks else 0)}", "Connection: close"]
    if named:
        lines += ["Gyoza-Attempt: 2", f"Gyoza-Log-Ended: {'true' if ended else 'false'}"]
    return "\r\n".join([*lines, "", ""]).encode() + log


async def follow(kind: Any, url: str, *args: Any) -> bytes:
    client, log = kind(url, "key"), b""
    try:
        parts = client.follow_logs(*args)
        if inspect.isasyncgen(parts):
            async for part in parts:
                log += part
        else:
            for part in parts:
                log += part
    finally:
        closing = client.close()
        if inspect.isawaitable(closing):
            await closing
    return log


async def test_an_answer_that_began_at_the_end_is_the_last(kind: Any):
    with serving([answer(b"all", ended=True)]) as (url, asked):
        assert await follow(kind, url, "r 1") == b"all"
    assert asked == ["/runs/r%201/logs?offset=0&follow=true"]


async def test_after_an_answer_that_did_not_the_rest_of_the_same_attempt_is_asked_for(kind: Any):
    with serving([answer(b"abc"), answer(b""), answer(b"de", ended=True)]) as (url, asked):
        assert await follow(kind, url, "r1", None, 5) == b"abcde"
    assert asked == [
        "/runs/r1/logs?offset=5&follow=true",
        *["/runs/r1/logs?attempt=2&offset=8&follow=true"] * 2,
    ]


async def test_what_breaks_off_is_gone_on_with_where_it_broke(kind: Any):
    broken = [answer(b"abc", breaks=True), answer(b"d", ended=True, breaks=True), b"", answer(b"e", ended=True)]
    with serving(broken) as (url, asked):
        assert await follow(kind, url, "r1", 2) == b"abcde"
    assert [each.split("offset=")[1].split("&")[0] for each in asked] == ["0", "3", "4", "4"]


async def test_a_server_that_fails_for_a_while_is_asked_again(kind: Any):
    failing = answer(b'{"code": "database_unavailable"}', status="503 Service Unavailable")
    with serving([failing, answer(b"all", ended=True)]) as (url, _):
        assert await follow(kind, url, "r1") == b"all"


async def test_a_refusal_is_final(kind: Any):
    missing = answer(b'{"code": "run_not_found"}', status="404 Not Found")
    with serving([missing]) as (url, _), pytest.raises(NotFound):
        await follow(kind, url, "r1")


async def test_what_answers_without_the_log_s_headers_is_no_gyoza(kind: Any):
    with serving([answer(b"<html>", named=False)]) as (url, _), pytest.raises(NotGyoza):
        await follow(kind, url, "r1")


async def test_patience_ends(kind: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(GyozaUnreachable):
        await follow(kind, url, "r1")


async def test_a_server_that_only_ever_breaks_off_is_not_asked_for_ever(kind: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "PATIENCE_S", 0.05)
    connections: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while not connections:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer(b"", breaks=True))

        thread = threading.Thread(target=serve)
        thread.start()
        address = listening.getsockname()
        with pytest.raises(GyozaUnreachable):
            await follow(kind, f"http://127.0.0.1:{address[1]}", "r1")
        connections.append(None)
        with socket.create_connection(address) as last:
            last.sendall(b"\r\n")
        thread.join()
