"""What is lost is found out by the clock: workers that fell silent, assignments that nobody took up."""

from collections.abc import Callable

import httpx
import pytest

from gyoza.policy.liveness import Pace

from .actors import Json, Worker, attempts, event, get, refused, submit, told, until

Hire = Callable[..., Worker]


@pytest.fixture
def pace() -> Pace:
    return Pace(heartbeat_s=0.5, lease_s=3)


async def ended(api: httpx.AsyncClient, run: Json, attempt: int = 1) -> Json | None:
    """That attempt, once it is over."""
    found = (await attempts(api, run))[attempt - 1]
    return found if found["finished_at"] else None


async def released(one: Worker, run: Json, *holding: Json) -> Json:
    """The first attempt of `run`, once it is over although its worker goes on living, and holding what it holds."""

    async def look() -> Json | None:
        told(await one.beat(*holding))
        return await ended(one.api, run)

    return await until(look)


async def test_what_was_handed_out_and_not_taken_up_is_released(alone: httpx.AsyncClient, worker: Hire):
    told(await alone.post("/definitions", json={"id": "slow", "image": "a", "timeouts": {"start_s": 0.2}}), 201)
    one = await worker().registered()
    run = told(await alone.post("/definitions/slow/runs", json={}), 201)
    held = await one.assignment()
    lost = await released(one, run)
    assert (lost["state"], lost["reason"]) == ("FAILED", "released")
    shown = await get(alone, run)
    assert (shown["user_failures"], shown["infra_losses"]) == (0, 0)
    assert (await one.report(held, event("STARTED")))["code"] == "lease_lost"


async def test_what_was_taken_up_is_not_released(alone: httpx.AsyncClient, worker: Hire):
    told(await alone.post("/definitions", json={"id": "slow", "image": "a", "timeouts": {"start_s": 0.2}}), 201)
    one = await worker().registered()
    taken_up = told(await alone.post("/definitions/slow/runs", json={}), 201)
    held = await one.assignment()
    told(await one.beat(held))
    left = told(await alone.post("/definitions/slow/runs", json={}), 201)
    await released(one, left, held)
    assert (await get(alone, taken_up))["state"] == "ASSIGNED"


async def test_a_silent_worker_is_evicted_and_its_work_goes_elsewhere(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    run = await submit(alone)
    held = await one.assignment()
    await one.report(held, event("STARTED"), event("PROGRESS", 50))
    lost = await until(lambda: ended(alone, run))
    assert (lost["state"], lost["reason"], lost["settled_at"]) == ("FAILED", "worker_lost", None)
    shown = await get(alone, run)
    assert (shown["state"], shown["current_attempt"], shown["infra_losses"]) == ("PENDING", 2, 1)
    assert told(await alone.get("/workers/w1"))["state"] == "lost"
    for call in (one.claim, one.send):
        refused(await call(), 409, "not_registered")
    other = await worker("w2", host="host-2").registered()
    assert (await other.assignment())["attempt"] == 2
    assert told(await one.beat(held))["stop"] == [{"run_id": run["id"], "attempt": 1, "reason": "worker_lost"}]
    assert (await one.report(held, event("COMPLETED")))["code"] == "lease_lost"
    assert (await one.report(held, settled=True))["ok"] is True
    assert told(await alone.get("/workers/w1"))["holding"] == []


async def test_a_patient_run_waits_for_its_worker_and_goes_on_when_it_is_back(alone: httpx.AsyncClient, worker: Hire):
    for name, execution in (("patient", {"server_lost_s": 3600}), ("hasty", {})):
        told(await alone.post("/definitions", json={"id": name, "image": "a", "execution": execution}), 201)
    one = await worker().registered()
    patient, hasty = [
        told(await alone.post(f"/definitions/{name}/runs", json={}), 201) for name in ("patient", "hasty")
    ]
    first = await one.assignment()
    second = await one.assignment(first)
    for held in (first, second):
        await one.report(held, event("STARTED"))
    assert (await until(lambda: ended(alone, hasty)))["reason"] == "worker_lost"
    assert told(await alone.get("/workers/w1"))["state"] == "lost"
    waiting = await get(alone, patient)
    assert (waiting["state"], waiting["current_attempt"], waiting["infra_losses"]) == ("RUNNING", 1, 0)
    assert waiting["events"][-1]["type"] == "INFO"
    assert waiting["events"][-1]["msg"].startswith("Worker w1 is silent since ")
    refused(await one.send(one.report_of(first, event("PROGRESS", 10))), 409, "not_registered")
    stop = {"run_id": hasty["id"], "attempt": 1, "reason": "worker_lost"}
    assert told(await one.beat(first, second))["stop"] == [stop]
    assert (await one.report(first, event("COMPLETED"), settled=True))["ok"] is True
    done = await get(alone, patient)
    assert (done["state"], done["current_attempt"], done["infra_losses"]) == ("COMPLETED", 1, 0)


async def test_the_name_of_a_lost_worker_is_free_for_another_host(alone: httpx.AsyncClient, worker: Hire):
    one, other = await worker().registered(), worker(host="host-2")
    refused(await other.beat(), 409, "worker_name_taken")

    async def taken_over() -> bool:
        return (await other.beat()).status_code == 200

    await until(taken_over)
    refused(await one.beat(), 409, "superseded")
