"""Quarantine over HTTP: who is in it, what it is given, how it ends."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gyoza.policy import quarantine
from gyoza.policy.quarantine import SHORTEST

from .actors import Json, Worker, event, get, submit, told, until

Hire = Callable[..., Worker]
Pair = tuple[httpx.AsyncClient, httpx.AsyncClient]
MEMBERS = {"since", "until", "cause", "reason", "canaries"}


async def held_back(api: httpx.AsyncClient, name: str = "bad") -> Any:
    return told(await api.get(f"/workers/{name}"))["quarantine"]


async def work(api: httpx.AsyncClient, one: Worker, ending: Json, times: int = 10) -> None:
    """A worker, for once with room, ends so many runs at once; none is tried again."""
    one.slots = times
    told(await one.beat())
    body = {"constraints": {"cpu": 0.1}, "retry_policy": {"fail_on": ["start_failed"]}}
    told(await api.post("/runs/batch", json={"runs": [{"image": "alpine", **body}] * times}), 201)

    async def all_of_them() -> list[Json]:
        found = told(await one.claim(most=times))["assignments"]
        return found if len(found) == times else []

    held = await until(all_of_them)
    reports = [one.report_of(each, event("STARTED"), ending, settled=True) for each in held]
    assert all(result["ok"] for result in told(await one.send(*reports))["results"])
    one.slots = 0
    told(await one.beat())


async def caught(api: httpx.AsyncClient) -> tuple[Worker, Worker]:
    """One that did everything well, and one that broke everything and is in quarantine; both have room."""
    good, bad = Worker(api, "good"), Worker(api, "bad")
    await work(api, good, event("COMPLETED"))
    await work(api, bad, event("FAILED", reason="start_failed"))
    good.slots = bad.slots = 4
    for one in (good, bad):
        told(await one.beat())
    await until(lambda: held_back(api))
    return good, bad


async def test_a_worker_that_breaks_everything_is_shown_in_quarantine_and_given_nothing(alone: httpx.AsyncClient):
    good, bad = await caught(alone)
    shown = await held_back(alone)
    assert set(shown) == MEMBERS
    assert shown["reason"] == "10 of its newest 10 attempts could not be run, far more than on other workers"
    assert (shown["cause"], shown["canaries"], shown["until"] > shown["since"]) == ("broken", 0, True)
    assert told(await bad.beat())["drain"] is False
    run = await submit(alone)
    assert (await good.assignment())["run_id"] == run["id"]
    listed = {worker["id"]: worker["quarantine"] for worker in told(await alone.get("/workers"))}
    assert listed == {"good": None, "bad": shown}
    assert "\ngyoza_workers_quarantined 1\n" in (await alone.get("/metrics")).text


async def test_an_administrator_ends_it_with_resume(alone: httpx.AsyncClient):
    good, bad = await caught(alone)
    assert told(await alone.post("/workers/bad/resume"))["quarantine"] is None
    good.slots = 0
    told(await good.beat())
    run = await submit(alone)
    assert (await bad.assignment())["run_id"] == run["id"]


@pytest.mark.parametrize("comes_through", [True, False])
async def test_one_run_decides_whether_it_is_trusted_again(
    alone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, comes_through: bool
):
    monkeypatch.setattr(quarantine, "SHORTEST", SHORTEST / 30)
    good, bad = await caught(alone)
    before = await held_back(alone)
    good.slots = 0
    told(await good.beat())
    await submit(alone, retry_policy={"max_attempts": 2})
    canary = await bad.assignment()
    ending = event("COMPLETED") if comes_through else event("FAILED", reason="disk_full")
    await bad.report(canary, event("STARTED"), ending, settled=True)

    async def judged() -> Any:
        now = await held_back(alone)
        return now is None or now["canaries"] == 1

    await until(judged)
    after = await held_back(alone)
    assert after is None if comes_through else (after["since"], after["canaries"]) == (before["since"], 1)


async def test_a_drained_worker_finishes_what_it_runs_and_is_given_work_again_through_any_server(twins: Pair):
    one, other = twins
    here, there = Worker(one, "w1"), Worker(other, "w1")
    told(await here.beat())
    there.instance, there.beats = here.instance, 100
    run = await submit(other)
    held = await here.assignment()
    await here.report(held, event("STARTED"))
    assert told(await other.post("/workers/w1/drain"))["drain"] is True
    waiting = await submit(one)
    assert told(await there.claim(held, wait_s=0.3)) == {"assignments": [], "stop": [], "drain": True}
    there.seqs = dict(here.seqs)
    assert (await there.report(held, event("COMPLETED"), settled=True))["ok"] is True
    assert (await get(one, run))["state"] == "COMPLETED"
    assert (await get(one, waiting))["state"] == "PENDING"
    assert told(await one.post("/workers/w1/resume"))["drain"] is False
    assert (await there.assignment())["run_id"] == waiting["id"]
