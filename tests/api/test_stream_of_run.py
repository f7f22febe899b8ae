"""Watching one run: each event once and in order, from wherever one begins, up to its end."""

import json
from collections.abc import Callable

import httpx
import pytest

from gyoza.models.lifecycle import OpRunState, next_state
from gyoza.server import watching as watchers
from gyoza.server.context import Context
from gyoza.store.database import Database

from .actors import Json, Worker, event, history, in_state, pointers, refused, say, submit, told
from .streams import noted, path_of, rows, watching

Hire = Callable[..., Worker]


async def test_a_run_that_is_over_is_told_from_its_beginning_to_its_end(api: httpx.AsyncClient):
    run = await in_state(api, "COMPLETED")
    async with watching(api, path_of(run)) as stream:
        *events, end = await stream.rest()
        assert stream.answer.headers["content-type"] == "text/event-stream"
        assert stream.answer.headers["cache-control"] == "no-store"
        assert stream.answer.headers["x-accel-buffering"] == "no"
        assert stream.said.retry == 1000
    assert [each.last_id for each in events] == ["0", "1"]
    assert (end.type, end.json) == ("end", {"state": "COMPLETED"})
    states = ["RUNNING", "COMPLETED"]
    assert rows(events) == [{**row, "state": state} for row, state in zip(await history(api, run), states, strict=True)]


async def test_events_are_told_as_they_come_and_the_same_as_afterwards(api: httpx.AsyncClient):
    run = await submit(api)
    live: list[Json] = []
    async with watching(api, path_of(run)) as stream:
        await stream.beats()
        for type, msg in (("INFO", "a"), ("STARTED", ""), ("ERROR", "b"), ("PROGRESS", 7), ("INFO", "c")):
            told(await say(api, run, type, msg))
            live += rows(await stream.take(1))
        told(await say(api, run, "CANCELLED"))
        live += rows(await stream.rest())
    assert [row["state"] for row in live] == ["PENDING", *["RUNNING"] * 4, "CANCELLED"]
    async with watching(api, path_of(run)) as stream:
        assert rows(await stream.rest()) == live


async def test_the_state_of_each_event_is_that_of_the_table(alone: httpx.AsyncClient, server: Context, worker: Hire):
    one = await worker().registered()
    run = await submit(alone, retry_policy={"max_attempts": 2})
    async with watching(alone, path_of(run)) as stream:
        for events in ([event("STARTED"), event("INFO"), event("FAILED", reason="op_error")], [event("STARTED")]):
            held = await one.assignment()
            await one.report(held, *events, settled=len(events) > 1)
        await one.report(held, event("PROGRESS", 5), event("COMPLETED"))
        seen, state = rows(await stream.rest()), OpRunState.PENDING
    assert len(seen) == 9
    for row in seen:
        state = next_state(state, row["type"], by_server=True)
        assert row["state"] == state


async def test_a_failure_that_is_tried_again_at_once_is_not_the_end(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    run = await submit(alone, retry_policy={"max_attempts": 2})
    async with watching(alone, path_of(run)) as stream:
        held = await one.assignment()
        await one.report(held, event("STARTED"), event("FAILED", reason="op_error"), settled=True)
        seen = await stream.take(4)
        assert [row["type"] for row in rows(seen)] == ["ASSIGNED", "STARTED", "FAILED", "RETRIED"]
        told(await alone.post(f"/runs/{run['id']}/cancel"))
        assert [each.type for each in await stream.rest()][-2:] == ["message", "end"]


async def test_a_run_that_was_retried_by_hand_is_told_on(api: httpx.AsyncClient):
    run = await in_state(api, "FAILED")
    told(await api.post(f"/runs/{run['id']}/retry"))
    async with watching(api, path_of(run)) as stream:
        assert [row["state"] for row in rows(await stream.take(3))] == ["RUNNING", "FAILED", "PENDING"]
        told(await api.post(f"/runs/{run['id']}/cancel"))
        assert [each.type for each in await stream.rest()] == ["message", "end"]


async def test_whoever_comes_back_is_told_what_it_has_missed(api: httpx.AsyncClient):
    run = await in_state(api, "COMPLETED")
    for how in ({"last_id": 0}, {"after": 0}, {"last_id": 0, "after": 1}, {"last_id": "0", "after": -1}):
        async with watching(api, path_of(run), **how) as stream:
            (missed, end) = await stream.rest()
            assert (missed.last_id, missed.json["type"], end.type) == ("1", "COMPLETED", "end")


async def test_whoever_has_everything_of_a_run_that_is_over_is_told_not_to_come_back(api: httpx.AsyncClient):
    run = await in_state(api, "COMPLETED")
    for headers, params in (({"Last-Event-ID": "1"}, {}), ({}, {"after": 1}), ({"Last-Event-ID": "1"}, {"after": 0})):
        answer = await api.get(path_of(run), headers=headers, params=params)
        assert (answer.status_code, answer.content) == (204, b"")


async def test_what_cannot_be_the_last_event_is_refused_by_its_name(api: httpx.AsyncClient):
    run = await submit(api)
    for path in (path_of(run), "/events/stream"):
        for last in ("x", "-1", "1.5", "99999999999999999999999", ""):
            answer = await api.get(path, headers={"Last-Event-ID": last})
            assert pointers(answer) == {"/header/Last-Event-ID"}, last
        assert pointers(await api.get(path, params={"after": "x"})) == {"/query/after"}


@pytest.mark.parametrize("run_id", ["x", "01890000-0000-7000-8000-000000000000"])
async def test_a_run_that_is_not_there_cannot_be_watched(api: httpx.AsyncClient, run_id: str):
    for path in ("events/stream", "wait"):
        problem = refused(await api.get(f"/runs/{run_id}/{path}"), 404, "run_not_found")
        assert problem["detail"] == f"OpRun '{run_id}' not found"


async def test_other_methods_are_refused_and_a_look_at_the_head_opens_no_stream(api: httpx.AsyncClient):
    run = await submit(api)
    for path in (path_of(run), "/events/stream"):
        answer = await api.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "text/event-stream"
        refused(await api.post(path), 405)


async def test_json_that_was_sent_in_lines_is_told_in_one(api: httpx.AsyncClient):
    run = await submit(api)
    laid_out = '{"x": {\r\n "a": 1.10,\r "b":\n "x\\ny\\r\u2028\x85z"\n}}'
    body = f'{{"type": "INFO", "msg": "l1\\nl2\\r\\nl3\u2029", "payload": {laid_out}}}'
    told(await api.post(f"/runs/{run['id']}/events", content=body.encode()))
    told(await say(api, run, "CANCELLED"))
    async with watching(api, path_of(run)) as stream:
        first, *_ = await stream.rest()
    assert first.json["msg"] == "l1\nl2\r\nl3\u2029"
    assert first.json["payload"] == json.loads(laid_out)
    assert '"a": 1.10' in first.data


async def test_a_silent_stream_says_that_it_lives(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watchers, "HEARTBEAT_S", 0.05)
    run = await submit(api)
    async with watching(api, path_of(run)) as stream, watching(api, "/events/stream") as other:
        await stream.beats(3)
        await other.beats(3)
        told(await say(api, run, "CANCELLED"))
        assert [each.type for each in await stream.rest()] == ["message", "end"]


async def test_an_old_stream_ends_and_the_next_goes_on_where_it_was(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watchers, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(watchers, "LONGEST_S", 0.1)
    run = await submit(api)
    await noted(api, run, "a", "b")
    async with watching(api, path_of(run)) as stream:
        assert [each.last_id for each in await stream.rest()] == ["0", "1"]


async def test_the_stream_of_a_run_that_is_deleted_ends(
    alone: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
):
    run, other = await submit(alone), await submit(alone)
    async with watching(alone, path_of(run)) as stream, watching(alone, path_of(other)) as going_on:
        await stream.beats()
        async with database.connection() as connection:
            await connection.execute("INSERT INTO outbox (run_id, n) VALUES (%s, 0)", [run["id"]])
            await connection.execute("DELETE FROM runs WHERE id = %s", [run["id"]])
        told(await say(alone, other, "CANCELLED"))
        assert await stream.rest() == []
        assert [each.type for each in await going_on.rest()] == ["message", "end"]
    refused(await alone.get(path_of(run), headers={"Last-Event-ID": "0"}), 404)
