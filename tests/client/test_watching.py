"""Watching and waiting through whatever a network does, on the sync and on the async client."""

import inspect
import json
import re
import socket
from typing import Any

import pytest

from gyoza.client import GyozaUnreachable, NotFound, NotGyoza, ServerFailed, following

from .wire import serving

END = b'event: end\ndata: {"state": "COMPLETED"}\n\n'


def row(n: int) -> dict[str, Any]:
    return {"id": n, "pos": 10 * n, "msg": f"m{n}"}


def said(*numbers: int, key: str = "id") -> bytes:
    return b"".join(b"id: %d\ndata: %s\n\n" % (row(n)[key], json.dumps(row(n)).encode()) for n in numbers)


def stream(body: bytes, *, breaks: bool = False, status: str = "200 OK", media: str = "text/event-stream") -> bytes:
    """An answer of one chunk; without the last one where it breaks off."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    return head.encode() + chunk + (b"" if breaks else b"0\r\n\r\n")


def answer(body: Any, status: str = "200 OK") -> bytes:
    text = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text


NO_MORE = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
AWAY = answer({"code": "database_unavailable"}, "503 Service Unavailable")


def last_id(request: str) -> str:
    """The target, and what the request says that it heard last."""
    found = re.search(r"last-event-id: (\S+)", request, re.IGNORECASE)
    return " ".join([request.split()[1], *([found[1]] if found else [])])


async def taken(kind: Any, url: str, ask: Any, number: int | None = None) -> list[dict[str, Any]]:
    """What `ask(client)` gives, or the first so many of it."""
    client, seen = kind(url, "key"), list[dict[str, Any]]()
    try:
        events = ask(client)
        if inspect.isasyncgen(events):
            async for event in events:
                seen.append(event)
                if len(seen) == number:
                    break
            await events.aclose()
        else:
            for event in events:
                seen.append(event)
                if len(seen) == number:
                    break
            events.close()
    finally:
        closing = client.close()
        if inspect.isawaitable(closing):
            await closing
    return seen


async def got(kind: Any, url: str, ask: Any) -> Any:
    client = kind(url, "key")
    try:
        answer = ask(client)
        return await answer if inspect.isawaitable(answer) else answer
    finally:
        closing = client.close()
        if inspect.isawaitable(closing):
            await closing


async def test_a_run_is_watched_to_its_end(kind: Any):
    with serving([stream(b"retry: 1000\n: heartbeat\n" + said(0, 1) + END)], last_id) as (url, asked):
        assert await taken(kind, url, lambda client: client.watch("r 1")) == [row(0), row(1)]
    assert asked == ["/runs/r%201/events/stream"]


async def test_after_a_break_the_next_connection_says_what_was_heard_last(kind: Any):
    answers = [
        stream(said(0, 1) + b'id: 2\ndata: {"id": 2, "ms', breaks=True),
        b"",
        stream(b"", breaks=True),
        stream(said(2)),
        AWAY,
        stream(said(3) + END),
    ]
    with serving(answers, last_id) as (url, asked):
        assert await taken(kind, url, lambda client: client.watch("r1")) == [row(n) for n in range(4)]
    path = "/runs/r1/events/stream"
    assert asked == [path, *[f"{path} 1"] * 3, f"{path} 2", f"{path} 2"]


async def test_what_is_told_twice_is_taken_once(kind: Any):
    with serving([stream(said(5, 6), breaks=True), stream(said(6, 5, 7) + END)], last_id) as (url, asked):
        assert await taken(kind, url, lambda client: client.watch("r1", 4)) == [row(5), row(6), row(7)]
    assert asked == ["/runs/r1/events/stream?after=4", "/runs/r1/events/stream?after=4 6"]


async def test_a_server_that_has_no_more_to_say_is_not_asked_again(kind: Any):
    with serving([stream(said(0)), NO_MORE]) as (url, asked):
        assert await taken(kind, url, lambda client: client.watch("r1")) == [row(0)]
    assert len(asked) == 2


async def test_all_runs_are_watched_from_where_the_stream_said_it_was(kind: Any):
    answers = [stream(b"id: 7\n\n"), stream(said(1, 2, key="pos"), breaks=True), stream(said(2, 3, key="pos"))]
    asking = {"op_definition": "a b", "types": ["INFO", "ERROR"], "tags": ["x"]}
    with serving(answers, last_id) as (url, asked):
        assert await taken(kind, url, lambda client: client.watch_all(**asking), 3) == [row(1), row(2), row(3)]
    path = "/events/stream?op_definition=a+b&type=INFO&type=ERROR&tag=x"
    assert asked == [path, f"{path} 7", f"{path} 20"]


async def test_messages_of_a_type_to_come_are_passed_over(kind: Any):
    with serving([stream(b"event: news\ndata: x\n\n" + said(0) + END)]) as (url, _):
        assert await taken(kind, url, lambda client: client.watch("r1")) == [row(0)]


async def test_a_refusal_is_final(kind: Any):
    missing = answer({"code": "run_not_found", "detail": "OpRun 'x' not found"}, "404 Not Found")
    with serving([missing]) as (url, _), pytest.raises(NotFound, match="OpRun 'x' not found"):
        await taken(kind, url, lambda client: client.watch("x"))


async def test_what_answers_something_else_is_no_gyoza(kind: Any):
    with serving([stream(b"<html>", media="text/html")]) as (url, _), pytest.raises(NotGyoza):
        await taken(kind, url, lambda client: client.watch("x"))


async def test_whoever_wants_to_know_is_told_of_each_loss_once(kind: Any):
    answers = [stream(said(0), breaks=True), b"", AWAY, stream(said(1), breaks=True), AWAY, stream(END)]
    losses: list[Exception] = []
    with serving(answers) as (url, _):
        assert len(await taken(kind, url, lambda client: client.watch("r1", lost=losses.append))) == 2
    assert len(losses) == 2


async def test_patience_ends(kind: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "PATIENCE_S", 0.05)
    url = nobody()
    with pytest.raises(GyozaUnreachable):
        await taken(kind, url, lambda client: client.watch("r1"))
    with pytest.raises(GyozaUnreachable):
        await got(kind, url, lambda client: client.wait("r1"))


def nobody() -> str:
    """An address at which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"http://127.0.0.1:{gone.getsockname()[1]}"


async def test_a_run_is_waited_for_by_as_many_calls_as_it_takes(kind: Any):
    answers = [answer({"state": "PENDING"}), b"", AWAY, answer({"state": "RUNNING"}), answer({"state": "FAILED"})]
    with serving(answers) as (url, asked):
        assert await got(kind, url, lambda client: client.wait("r 1")) == {"state": "FAILED"}
    assert asked == ["/runs/r%201/wait?timeout_s=25.0"] * 5


async def test_when_the_time_is_over_the_run_is_given_as_it_is(kind: Any):
    with serving([answer({"state": "RUNNING"})]) as (url, asked):
        assert await got(kind, url, lambda client: client.wait("r1", 0)) == {"state": "RUNNING"}
    assert asked == ["/runs/r1/wait?timeout_s=0.0"]


async def test_when_the_time_is_over_nobody_waits_for_a_server(kind: Any):
    with serving([AWAY]) as (url, _), pytest.raises(ServerFailed):
        await got(kind, url, lambda client: client.wait("r1", 0))
    with pytest.raises(GyozaUnreachable):
        await got(kind, nobody(), lambda client: client.wait("r1", 0))
