"""Many at once on one run: nothing is lost, nothing happens twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from gyoza.policy.liveness import Pace
from gyoza.server.app import running
from gyoza.server.settings import Settings

from .actors import Json, Worker, attempts, event, get, history, in_state, refused, say, submit, told
from .conftest import client_of

Hire = Callable[..., Worker]
Doors = Callable[[int], httpx.AsyncClient]
ENDINGS = ("COMPLETED", "FAILED", "CANCELLED")


@pytest.fixture(params=["one server", "two servers"])
async def doors(
    alone: httpx.AsyncClient, database_url: str, tmp_path: Path, pace: Pace, request: pytest.FixtureRequest
) -> AsyncIterator[Doors]:
    """Clients by number: of `alone`, and of a second server on its database, in turn."""
    if request.param == "one server":
        yield lambda number: alone
        return
    settings = Settings(data_dir=tmp_path / "second", pace=pace)
    async with running(settings, database_url, asyncio.Event()) as context, client_of(context) as second:
        yield lambda number: (alone, second)[number % 2]


async def later(seconds: float, asked: Awaitable[Any]) -> Any:
    await asyncio.sleep(seconds)
    return await asked


async def test_of_16_writers_on_one_run_none_is_lost(api: httpx.AsyncClient):
    run = await submit(api)

    async def write(writer: int) -> None:
        for number in range(5):
            told(await say(api, run, "INFO", f"{writer}.{number}"))

    await asyncio.gather(*(write(writer) for writer in range(16)))
    rows = await history(api, run)
    assert [row["id"] for row in rows] == list(range(80))
    said = [row["msg"] for row in rows]
    assert sorted(said) == sorted(f"{writer}.{number}" for writer in range(16) for number in range(5))
    for writer in range(16):
        own = [msg for msg in said if msg.startswith(f"{writer}.")]
        assert own == sorted(own)
    assert [row["t"] for row in rows] == sorted(row["t"] for row in rows)


async def test_of_16_endings_exactly_one_wins(api: httpx.AsyncClient):
    for _ in range(5):
        run = await in_state(api, "RUNNING")
        types = ("COMPLETED", "FAILED", "CANCELLED", "COMPLETED") * 4
        answers = await asyncio.gather(*(say(api, run, type, f"{n}") for n, type in enumerate(types)))
        (won,) = [answer for answer in answers if answer.status_code == 200]
        for answer in answers:
            if answer is not won:
                refused(answer, 400, "run_locked")
        (ending,) = [row for row in await history(api, run) if row["type"] != "STARTED"]
        assert ending["type"] == types[int(ending["msg"])] == (await get(api, run))["state"] == told(won)["state"]


async def test_of_16_cancels_one_is_answered_well(api: httpx.AsyncClient):
    run = await submit(api)
    answers = await asyncio.gather(*(api.post(f"/runs/{run['id']}/cancel") for _ in range(16)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 15}
    assert [row["type"] for row in await history(api, run)] == ["CANCELLED"]


async def test_of_16_retries_one_opens_an_attempt(api: httpx.AsyncClient):
    run = await in_state(api, "FAILED")
    answers = await asyncio.gather(*(api.post(f"/runs/{run['id']}/retry") for _ in range(16)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 15}
    assert len(await attempts(api, run)) == 2


async def test_a_cancel_against_a_completion_leaves_one_truth(doors: Doors, worker: Hire):
    """Whoever is asked first is not always the one who comes first; who lost gets a longer start, until both happen."""
    one, states, start_s = await worker().registered(), Counter[str](), 0.0
    while len(states) < 2 or states.total() < 10:
        assert states.total() < 200, states
        run = await submit(doors(0))
        held = await one.assignment()
        await one.report(held, event("STARTED"))
        result, cancelled = await asyncio.gather(
            later(-start_s, one.report(held, event("COMPLETED", outputs={"y": 1}))),
            later(start_s, doors(1).post(f"/runs/{run['id']}/cancel")),
        )
        run = await get(doors(0), run)
        endings = [row["type"] for row in run["events"] if row["type"] in ENDINGS]
        assert endings == [run["state"]]
        if run["state"] == "COMPLETED":
            assert (result["ok"], run["outputs"]) == (True, {"y": 1})
            refused(cancelled, 400)
        else:
            assert (cancelled.status_code, result["code"], run["outputs"]) == (200, "lease_lost", None)
        assert (await one.report(held, settled=True))["ok"] is True
        states[run["state"]] += 1
        start_s += 0.001 if run["state"] == "CANCELLED" else -0.001


async def test_of_16_writers_one_is_a_worker_and_the_run_goes_on_and_none_is_lost(doors: Doors, worker: Hire):
    one = await worker().registered()
    run = await submit(doors(0))
    held = await one.assignment()

    async def write(writer: int) -> None:
        for number in range(5):
            told(await say(doors(writer), run, "INFO", f"{writer}.{number}"))

    async def work() -> None:
        await one.report(held, event("STARTED"))
        for number in range(5):
            assert (await one.report(held, event("INFO", f"15.{number}"), event("PROGRESS", number * 20)))["ok"]

    await asyncio.gather(work(), *(write(writer) for writer in range(15)))
    rows = await history(doors(1), run)
    assert [row["id"] for row in rows] == list(range(2 + 80 + 5))
    said = [row["msg"] for row in rows if row["type"] == "INFO"]
    assert sorted(said) == sorted(f"{writer}.{number}" for writer in range(16) for number in range(5))
    assert [row["msg"] for row in rows if row["type"] == "PROGRESS"] == [0, 20, 40, 60, 80]
    assert [row["t"] for row in rows] == sorted(row["t"] for row in rows)


async def test_of_16_endings_from_outside_and_by_its_worker_exactly_one_wins(doors: Doors, worker: Hire):
    """Until the worker has won and lost."""
    one, winners = await worker().registered(), Counter[str]()
    while winners.total() < 12 or len(winners) < 2 or not winners["report"]:
        assert winners.total() < 100, winners
        run = await submit(doors(0))
        held = await one.assignment()
        await one.report(held, event("STARTED"))
        looks = winners.total() % 5
        answers = await asyncio.gather(*sixteen_endings(doors, run, one, held, looks=looks))
        run = await get(doors(0), run)
        (ending,) = [row for row in run["events"] if row["type"] in ENDINGS]
        assert ending["type"] == run["state"]
        assert_told_the_truth(ending, answers)
        winners[ending["msg"].split()[0]] += 1
        await one.report(held, settled=True)


def sixteen_endings(
    doors: Doors, run: Json, one: Worker, held: Json, *, looks: int
) -> list[Coroutine[Any, Any, httpx.Response]]:
    """5 events, 5 cancels, 3 updates, and 3 reports of which one alone can be the worker's second.

    The others look at the run so many times before, and the worker does not.
    """
    path, second = f"/runs/{run['id']}", one.report_of(held)

    async def after_looking(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        for _ in range(looks):
            await get(doors(0), run)
        return await ask()

    asked = [
        *(partial(say, doors(n), run, "CANCELLED", f"event {n}") for n in range(5)),
        *(partial(doors(n).post, f"{path}/cancel") for n in range(5)),
        *(partial(doors(n).patch, path, json={"state": state}) for n, state in enumerate(ENDINGS)),
    ]
    reports = [{**second, "events": [event(type, f"report {type}")]} for type in ("COMPLETED", "FAILED", "FAILED")]
    return [*map(after_looking, asked), *map(one.send, reports)]


def assert_told_the_truth(ending: Json, answers: list[httpx.Response]) -> None:
    """Whoever was told that it ended the run did; an update is told so too where the run has that state already."""
    events, cancels, updates, reports = answers[:5], answers[5:10], answers[10:13], answers[13:]
    believed = [f"event {n}" for n, answer in enumerate(events) if answer.is_success]
    believed += ["Cancelled by user" for answer in cancels if answer.is_success]
    won_by = ending["msg"].split()[0]
    assert believed == ([ending["msg"]] if won_by in ("event", "Cancelled") else [])
    assert [answer.is_success for answer in updates] == [state == ending["type"] for state in ENDINGS]
    assert {told(answer)["results"][0]["ok"] for answer in reports} == {won_by == "report"}


async def test_several_workers_never_hold_the_same_attempt(alone: httpx.AsyncClient, worker: Hire):
    runs = {(await submit(alone))["id"] for _ in range(20)}
    held: list[str] = []

    async def work(one: Worker) -> None:
        await one.registered()
        while len(held) < len(runs):
            for each in told(await one.claim(wait_s=0.2))["assignments"]:
                held.append(each["run_id"])
                await one.report(each, event("STARTED"), event("COMPLETED"), settled=True)

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(worker(f"w{number}", slots=2)) for number in range(4)))
    assert sorted(held) == sorted(runs)
    for run in runs:
        rows = [row["type"] for row in await history(alone, {"id": run})]
        assert rows == ["ASSIGNED", "STARTED", "COMPLETED"]


async def test_updates_at_once_leave_one_truth(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    answers = await asyncio.gather(
        *(
            api.patch(f"/runs/{run['id']}", json={"state": "COMPLETED", "outputs": {"by": n}, "priority": n})
            for n in range(8)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    run = await get(api, run)
    assert run["outputs"]["by"] == run["priority"]
    assert [row["type"] for row in run["events"]] == ["STARTED", "COMPLETED"]
