"""Many at once on one run: nothing is lost, nothing happens twice."""

import asyncio
from collections import Counter
from collections.abc import Callable

import httpx

from .actors import Worker, attempts, event, get, history, in_state, refused, say, submit, told

Hire = Callable[..., Worker]


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


async def test_a_cancel_against_a_completion_leaves_one_truth(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    for _ in range(10):
        run = await submit(alone)
        held = await one.assignment()
        await one.report(held, event("STARTED"))
        cancelled, result = await asyncio.gather(
            alone.post(f"/runs/{run['id']}/cancel"), one.report(held, event("COMPLETED", outputs={"y": 1}))
        )
        run = await get(alone, run)
        endings = [row["type"] for row in run["events"] if row["type"] in ("COMPLETED", "CANCELLED")]
        assert endings == [run["state"]]
        if run["state"] == "COMPLETED":
            assert (result["ok"], run["outputs"]) == (True, {"y": 1})
            refused(cancelled, 400)
        else:
            assert (cancelled.status_code, result["code"], run["outputs"]) == (200, "lease_lost", None)
        assert (await one.report(held, settled=True))["ok"] is True


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
