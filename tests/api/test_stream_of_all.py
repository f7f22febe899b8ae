"""Watching all runs: one order for all, from a position on, narrowed by what is asked."""

import asyncio
from typing import Any

import httpx
import pytest

from gyoza.server import watching as watchers

from .actors import history, pointers, say, submit, told
from .streams import noted, path_of, rows, watching


async def test_the_stream_of_all_runs_begins_now_and_says_where_that_is(alone: httpx.AsyncClient):
    first, second = await submit(alone), await submit(alone)
    async with watching(alone, "/events/stream", after=0) as stream:
        await noted(alone, first, "a", "b")
        await stream.take(2)
    async with watching(alone, "/events/stream") as stream:
        await stream.beats()
        start = stream.said.last_id
        assert int(start) > 0
        await noted(alone, second, "c")
        (row,) = rows(await stream.take(1))
        assert (row["run_id"], row["id"], row["msg"], row["op_definition"]) == (second["id"], 0, "c", None)
        assert int(stream.said.last_id) == row["pos"] > int(start)
        assert set(row) == {"pos", "run_id", "op_definition", *(await history(alone, first))[0]}
    async with watching(alone, "/events/stream", last_id=start) as stream:
        assert rows(await stream.take(1)) == [row]
    async with watching(alone, "/events/stream", after=0) as stream:
        assert [row["msg"] for row in rows(await stream.take(3))] == ["a", "b", "c"]


async def test_the_stream_of_all_runs_is_narrowed_by_what_is_asked(alone: httpx.AsyncClient):
    for name, tags in (("red", ["a", "b"]), ("green", ["b"]), ("blue", [])):
        told(await alone.post("/definitions", json={"id": name, "image": "i", "tags": tags}), 201)
    runs = {
        name: told(await alone.post(f"/definitions/{name}/runs", json={}), 201) for name in ("red", "green", "blue")
    }
    runs["ad hoc"] = await submit(alone)
    for run in runs.values():
        for type in ("INFO", "STARTED", "COMPLETED"):
            told(await say(alone, run, type))
    names = {run["id"]: name for name, run in runs.items()}
    types = ("INFO", "STARTED", "COMPLETED")

    def every(which: str, kinds: tuple[str, ...] = types) -> list[tuple[str, str]]:
        return [(name, kind) for name in which.split(",") for kind in kinds]

    asked: list[tuple[Any, list[tuple[str, str]]]] = [
        ({"op_definition": "green"}, every("green")),
        ({"op_definition": ""}, every("red,green,blue,ad hoc")),
        ({"type": "STARTED"}, every("red,green,blue,ad hoc", ("STARTED",))),
        ({"type": ["STARTED", "INFO"]}, every("red,green,blue,ad hoc", ("INFO", "STARTED"))),
        ({"tag": "b"}, every("red,green")),
        ({"tag": ["b", "a"]}, every("red")),
        ({"tag": "b", "type": "COMPLETED", "op_definition": "green"}, [("green", "COMPLETED")]),
    ]
    for params, expected in asked:
        async with watching(alone, "/events/stream", after=0, **params) as stream:
            seen = rows(await stream.take(len(expected)))
            assert [(names[row["run_id"]], row["type"]) for row in seen] == expected, params
            assert seen[0]["op_definition"] in (*runs, None)


async def test_an_unknown_type_is_refused(api: httpx.AsyncClient):
    assert pointers(await api.get("/events/stream?type=INFO&type=BOO")) == {"/query/type/1"}


async def test_what_a_narrowed_stream_passes_over_is_not_read_again(
    alone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watchers, "HEARTBEAT_S", 0.05)
    run = await submit(alone)
    async with watching(alone, "/events/stream") as all_runs, watching(alone, "/events/stream", type="ERROR") as stream:
        await stream.beats()
        await noted(alone, run, *"abcde")
        await all_runs.take(5)
        async with asyncio.timeout(10):
            while int(stream.said.last_id) < int(all_runs.said.last_id):
                await stream.beats()
        assert int(stream.said.last_id) == int(all_runs.said.last_id) > 0
        told(await say(alone, run, "ERROR", "now"))
        assert rows(await stream.take(1))[0]["msg"] == "now"


async def test_the_events_of_each_run_are_in_their_order_in_the_stream_of_all(alone: httpx.AsyncClient):
    runs = [await submit(alone) for _ in range(4)]
    async with watching(alone, "/events/stream") as stream:
        await stream.beats()
        await asyncio.gather(*(noted(alone, runs[n % 4], *"abcde") for n in range(16)))
        seen = rows(await stream.take(80))
    assert [row["pos"] for row in seen] == sorted({row["pos"] for row in seen})
    for run in runs:
        assert [row["id"] for row in seen if row["run_id"] == run["id"]] == list(range(20))


async def test_of_16_writers_on_one_run_all_is_told_once_and_in_order(alone: httpx.AsyncClient):
    run = await submit(alone)
    async with watching(alone, path_of(run)) as early:
        await asyncio.gather(*(noted(alone, run, *(f"{writer}.{n}" for n in range(5))) for writer in range(16)))
        async with watching(alone, path_of(run)) as late:
            told(await say(alone, run, "CANCELLED"))
            seen = rows(await early.rest())
            assert rows(await late.rest()) == seen
    assert [row["id"] for row in seen] == list(range(81))
    assert [row["msg"] for row in seen] == [row["msg"] for row in await history(alone, run)]
