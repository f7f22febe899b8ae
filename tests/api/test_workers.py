"""Workers register, keep alive, are drained and removed: what is answered to whom."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from .actors import Worker, attempts, event, get, history, pointers, refused, submit, told

Hire = Callable[..., Worker]
FIELDS = "id state drain quarantine host_id resources room tags engines version images holding registered_at seen_at"
GPU = {"id": 0, "uuid": "GPU-1", "name": "card", "vram_mb": 8000, "foreign_mb": 1000}


async def shown(api: httpx.AsyncClient, name: str = "w1") -> dict[str, Any]:
    return told(await api.get(f"/workers/{name}"))


async def test_a_worker_registers_with_its_first_heartbeat(alone: httpx.AsyncClient, worker: Hire):
    assert told(await alone.get("/workers")) == []
    refused(await alone.get("/workers/w1"), 404, "worker_not_found")
    heard = told(await worker(gpus=[GPU]).beat(tags=["fast"], version="1.0", images=["alpine"]))
    assert heard == {"heartbeat_s": 5, "lease_s": 60, "drain": False, "stop": []}
    found = await shown(alone)
    assert set(found) == set(FIELDS.split())
    assert (found["id"], found["state"], found["drain"], found["host_id"]) == ("w1", "alive", False, "host-1")
    assert found["resources"] == {"cpu": 4, "ram_mb": 8192, "slots": 8, "gpus": [GPU]}
    assert found["room"] == {"cpu": 4, "ram_mb": 8192, "slots": 8, "vram_mb": {"0": 7000}}
    assert (found["tags"], found["engines"]) == (["fast"], ["docker", "process"])
    assert (found["version"], found["images"], found["holding"]) == ("1.0", ["alpine"], [])
    assert told(await alone.get("/workers")) == [found]


async def test_every_heartbeat_says_anew_what_the_worker_has(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered(tags=["old"])
    registered = await shown(alone)
    one.cpu, one.slots = 0.5, 1
    told(await one.beat(tags=["new"]))
    found = await shown(alone)
    assert (found["resources"]["cpu"], found["resources"]["slots"], found["tags"]) == (0.5, 1, ["new"])
    assert found["registered_at"] == registered["registered_at"]
    assert found["seen_at"] > registered["seen_at"]


async def test_a_heartbeat_overtaken_by_a_newer_one_changes_nothing(alone: httpx.AsyncClient, worker: Hire):
    one = worker()
    told(await one.beat(seq=5, tags=["new"]))
    for seq in (4, 5):
        told(await one.beat(seq=seq, tags=["old"]))
    assert (await shown(alone))["tags"] == ["new"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"instance": ""}, "/instance"),
        ({"instance": 5}, "/instance"),
        ({"seq": 0}, "/seq"),
        ({"seq": "1"}, "/seq"),
        ({"host_id": None}, "/host_id"),
        ({"resources": {"cpu": 1, "ram_mb": 1}}, "/resources/slots"),
        ({"resources": {"cpu": 1.2345, "ram_mb": 1, "slots": 1}}, "/resources/cpu"),
        ({"resources": {"cpu": 1, "ram_mb": -1, "slots": 1}}, "/resources/ram_mb"),
        ({"resources": {"cpu": 1, "ram_mb": 1, "slots": 1, "gpus": [{"id": 0}]}}, "/resources/gpus/0/uuid"),
        ({"holding": [{"run_id": "x"}]}, "/holding/0/attempt"),
        ({"tags": "fast"}, "/tags"),
        ({"colour": "red"}, "/colour"),
        ({"resources": {"cpu": 1, "ram_mb": 1, "slots": 1, "colour": 1}}, "/resources/colour"),
    ],
)
async def test_a_misshapen_heartbeat_is_refused(api: httpx.AsyncClient, changes: Any, place: str):
    assert place in pointers(await Worker(api, "nobody").beat(**changes))
    refused(await api.get("/workers/nobody"), 404)


@pytest.mark.parametrize(("call", "body"), [("claim", {}), ("reports", {"reports": []})])
async def test_our_own_bodies_refuse_unknown_members(api: httpx.AsyncClient, call: str, body: Any):
    answer = await api.post(f"/workers/nobody/{call}", json={"instance": "i", "colour": "red", **body})
    assert pointers(answer) == {"/colour"}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"max": -1}, "/max"),
        ({"max": 1.5}, "/max"),
        ({"wait_s": -1}, "/wait_s"),
        ({"wait_s": 25.1}, "/wait_s"),
        ({"known": [{"run_id": 5, "attempt": 1}]}, "/known/0/run_id"),
        ({"known": [{"run_id": "x", "attempt": 0}]}, "/known/0/attempt"),
    ],
)
async def test_a_misshapen_claim_is_refused(api: httpx.AsyncClient, changes: Any, place: str):
    assert pointers(await api.post("/workers/nobody/claim", json={"instance": "i", **changes})) == {place}


async def test_a_live_name_is_not_given_to_another_host(alone: httpx.AsyncClient, worker: Hire):
    one, other = await worker().registered(), worker(host="host-2")
    for _ in range(2):
        refused(await other.beat(), 409, "worker_name_taken")
    told(await one.beat())
    refused(await other.claim(), 409, "not_registered")
    assert (await shown(alone))["host_id"] == "host-1"


async def test_a_new_process_on_the_same_host_takes_over_and_the_old_one_is_told(worker: Hire):
    old, new = await worker().registered(), await worker().registered()
    for call in (old.beat, old.claim, old.send):
        refused(await call(), 409, "superseded")
    third = await worker().registered()
    for each in (old, new):
        refused(await each.beat(), 409, "superseded")
    told(await third.claim())


async def test_who_never_registered_is_told_to(alone: httpx.AsyncClient, worker: Hire):
    one = worker()
    for call in (one.claim, one.send):
        refused(await call(), 409, "not_registered")
    assert told(await alone.get("/workers")) == []


async def test_what_a_process_held_is_lost_when_its_successor_does_not_hold_it(alone: httpx.AsyncClient, worker: Hire):
    run = await submit(alone)
    held = await (await worker(slots=1).registered()).assignment()
    successor = worker(slots=1)
    told(await successor.beat(held))
    assert (await get(alone, run))["state"] == "ASSIGNED"
    told(await (third := worker(slots=1)).beat())
    run = await get(alone, run)
    assert (run["infra_losses"], run["current_attempt"]) == (1, 2)
    refused(await successor.beat(), 409, "superseded")
    assert (await third.assignment())["attempt"] == 2


async def test_a_run_that_kills_every_worker_it_meets_is_stopped_at_five(alone: httpx.AsyncClient, worker: Hire):
    """Each is started anew, by its supervisor, and holds nothing. None of that is the user's: no failure is counted."""
    run = await submit(alone)
    for number in range(1, 6):
        victim = await worker(f"w{number}").registered()
        held = await victim.assignment()
        assert (held["run_id"], held["attempt"]) == (run["id"], number)
        await victim.report(held, event("STARTED"))
        for each in (number + 1, number):
            told(await worker(f"w{each}").beat())
    ended = await get(alone, run)
    assert (ended["state"], ended["reason"], ended["current_attempt"]) == ("FAILED", "worker_lost", 5)
    assert (ended["infra_losses"], ended["user_failures"]) == (5, 0)
    assert [each["reason"] for each in await attempts(alone, run)] == ["worker_lost"] * 5
    assert told(await (await worker("w7").registered()).claim(wait_s=0.3))["assignments"] == []


async def test_what_was_acknowledged_and_is_missing_from_a_newer_heartbeat_is_lost(
    alone: httpx.AsyncClient, worker: Hire
):
    one = await worker().registered()
    run = await submit(alone)
    held = await one.assignment()
    told(await one.beat(held))
    told(await one.beat(held))
    assert (await get(alone, run))["state"] == "ASSIGNED"
    told(await one.beat())
    run = await get(alone, run)
    assert (run["current_attempt"], run["infra_losses"], run["user_failures"]) == (2, 1, 0)
    (lost, _) = await attempts(alone, run)
    assert (lost["state"], lost["reason"], lost["settled_at"] is None) == ("FAILED", "worker_lost", False)
    assert [row["type"] for row in await history(alone, run)][:3] == ["ASSIGNED", "FAILED", "RETRIED"]
    assert (await one.report(held, event("STARTED")))["code"] == "lease_lost"
    assert (await one.assignment())["attempt"] == 2


async def test_what_was_taken_up_after_a_heartbeat_was_written_is_not_lost_by_it(
    alone: httpx.AsyncClient, worker: Hire
):
    one = await worker().registered()
    run = await submit(alone)
    held = await one.assignment()
    await one.report(held, event("STARTED"))
    told(await one.beat())
    assert (await get(alone, run))["state"] == "RUNNING"
    told(await one.beat(held))
    assert (await get(alone, run))["state"] == "RUNNING"


async def test_a_drained_worker_gets_nothing_until_it_is_resumed(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    found = told(await alone.post("/workers/w1/drain"))
    assert (found["drain"], found) == (True, await shown(alone))
    assert told(await one.beat())["drain"] is True
    run = await submit(alone)
    assert told(await one.claim(wait_s=0.3)) == {"assignments": [], "stop": [], "drain": True}
    assert (await get(alone, run))["state"] == "PENDING"
    assert told(await alone.post("/workers/w1/resume"))["drain"] is False
    assert (await one.assignment())["run_id"] == run["id"]


async def test_a_drain_gives_back_what_was_not_started_and_lets_the_rest_go_on(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    started, waiting = await submit(alone), await submit(alone)
    first = await one.assignment()
    await one.report(first, event("STARTED"))
    second = await one.assignment(first)
    told(await alone.post("/workers/w1/drain"))
    assert (await get(alone, started))["state"] == "RUNNING"
    waiting = await get(alone, waiting)
    assert (waiting["state"], waiting["current_attempt"]) == ("PENDING", 2)
    assert (waiting["infra_losses"], waiting["user_failures"]) == (0, 0)
    assert told(await one.claim(first, second))["stop"] == [
        {"run_id": second["run_id"], "attempt": 1, "reason": "drained"}
    ]
    assert (await one.report(first, event("COMPLETED"), settled=True))["ok"] is True


async def test_a_removed_worker_is_gone_and_its_work_goes_back(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    run = await submit(alone)
    held = await one.assignment()
    await one.report(held, event("STARTED"))
    assert (await alone.delete("/workers/w1")).status_code == 204
    for call in (alone.get, alone.delete):
        refused(await call("/workers/w1"), 404, "worker_not_found")
    for call in ("drain", "resume"):
        refused(await alone.post(f"/workers/w1/{call}"), 404, "worker_not_found")
    assert told(await alone.get("/workers")) == []
    run = await get(alone, run)
    assert (run["state"], run["current_attempt"], run["infra_losses"]) == ("PENDING", 2, 1)
    refused(await one.claim(), 409, "not_registered")
    assert told(await one.beat(held))["stop"] == [{"run_id": run["id"], "attempt": 1, "reason": "worker_lost"}]
    assert (await shown(alone))["state"] == "alive"


async def test_room_is_what_is_left_after_what_is_held(alone: httpx.AsyncClient, worker: Hire):
    one = await worker(gpus=[GPU]).registered()
    await submit(alone, constraints={"cpu": 0.5, "ram_mb": 1000, "vram_mb": 3000})
    first = await one.assignment()
    assert first["gpu_ids"] == [0]
    assert (await shown(alone))["room"] == {"cpu": 3.5, "ram_mb": 7192, "slots": 7, "vram_mb": {"0": 4000}}
    await submit(alone)
    await one.assignment(first)
    found = await shown(alone)
    assert found["room"] == {"cpu": 2.5, "ram_mb": 6936, "slots": 6, "vram_mb": {"0": 4000}}
    assert [each["state"] for each in found["holding"]] == ["ASSIGNED", "ASSIGNED"]


async def test_what_does_not_fit_waits_for_room(alone: httpx.AsyncClient, worker: Hire):
    one = await worker(cpu=2).registered()
    first, second = await submit(alone, constraints={"cpu": 2}), await submit(alone, constraints={"cpu": 2})
    held = await one.assignment()
    assert held["run_id"] == first["id"]
    await one.report(held, event("STARTED"), event("COMPLETED"))
    waiting = asyncio.create_task(one.assignment())
    assert (await get(alone, second))["state"] == "PENDING"
    assert (await shown(alone))["room"]["cpu"] == 0
    await one.report(held, settled=True)
    assert (await waiting)["run_id"] == second["id"]


async def test_runs_of_a_higher_priority_are_handed_out_first(alone: httpx.AsyncClient, worker: Hire):
    ids = {priority: (await submit(alone, priority=priority))["id"] for priority in (0, 9, 5, -3)}
    one = await worker(slots=1).registered()
    order: list[str] = []
    for _ in ids:
        held = await one.assignment()
        order.append(held["run_id"])
        await one.report(held, event("STARTED"), event("COMPLETED"), settled=True)
    assert order == [ids[priority] for priority in (9, 5, 0, -3)]


async def test_a_run_of_an_image_goes_to_no_worker_without_docker(alone: httpx.AsyncClient, worker: Hire):
    await submit(alone)
    plain = await worker("plain").registered(engines=["process"])
    box = await worker("box").registered()
    await box.assignment()
    assert told(await plain.claim())["assignments"] == []


async def test_no_read_shows_a_lease_token(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    run = await submit(alone)
    held = await one.assignment()
    await one.report(held, event("STARTED"))
    assert len(held["lease_token"]) >= 16
    paths = ["", "/events", "/attempts"]
    for path in [*(f"/runs/{run['id']}{each}" for each in paths), "/runs", "/workers", "/workers/w1"]:
        text = (await alone.get(path)).text
        assert held["lease_token"] not in text
        assert "lease_token" not in text
