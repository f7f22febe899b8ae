"""Waiting for a run: answered as soon as it is over, or when the time is."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from .actors import Worker, event, get, in_state, pointers, say, submit, told
from .streams import noted, path_of, watching

Hire = Callable[..., Worker]


async def test_a_run_that_is_over_is_not_waited_for(api: httpx.AsyncClient):
    for state in ("COMPLETED", "FAILED", "CANCELLED"):
        run = await in_state(api, state)
        assert told(await api.get(f"/runs/{run['id']}/wait")) == await get(api, run)


async def test_whoever_waits_is_answered_as_soon_as_the_run_is_over(api: httpx.AsyncClient):
    run = told(await say(api, await submit(api), "STARTED"))
    waiting = [asyncio.create_task(api.get(f"/runs/{run['id']}/wait")) for _ in range(5)]
    await noted(api, run, "a")
    async with watching(api, path_of(run)) as stream:
        await stream.take(2)
    assert not any(each.done() for each in waiting)
    told(await say(api, run, "COMPLETED", payload={"outputs": {"y": 1}}))
    async with asyncio.timeout(10):
        for each in waiting:
            assert told(await each) == await get(api, run)


async def test_when_the_time_is_over_the_run_is_answered_as_it_is(api: httpx.AsyncClient):
    run = await submit(api)
    for timeout_s in ("0", "0.05"):
        async with asyncio.timeout(10):
            answer = await api.get(f"/runs/{run['id']}/wait", params={"timeout_s": timeout_s})
        assert told(answer) == run


async def test_a_failure_that_is_tried_again_at_once_ends_no_wait(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    run = await submit(alone, retry_policy={"max_attempts": 2})
    held = await one.assignment()
    waiting = asyncio.create_task(alone.get(f"/runs/{run['id']}/wait"))
    await one.report(held, event("STARTED"), event("FAILED", reason="op_error"), settled=True)
    async with watching(alone, path_of(run)) as stream:
        await stream.take(5)
        assert not waiting.done()
        told(await alone.post(f"/runs/{run['id']}/cancel"))
    assert told(await asyncio.wait_for(waiting, 10))["state"] == "CANCELLED"


@pytest.mark.parametrize("timeout_s", ["-1", "25.1", "x", "nan"])
async def test_a_time_that_is_out_of_bounds_is_refused(api: httpx.AsyncClient, timeout_s: str):
    run = await submit(api)
    assert pointers(await api.get(f"/runs/{run['id']}/wait", params={"timeout_s": timeout_s})) == {"/query/timeout_s"}
