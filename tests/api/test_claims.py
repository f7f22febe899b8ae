"""Claims hand out what is assigned, as often as they are repeated; reports say what became of it."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from .actors import Json, Worker, attempts, event, get, history, refused, say, submit, told

Hire = Callable[..., Worker]
FIELDS = """run_id attempt lease_token op_definition image image_digest bundle inputs constraints gpu_ids execution
    timeouts output_specs"""


@pytest.fixture
async def one(worker: Hire) -> Worker:
    return await worker().registered()


@pytest.fixture
async def run(alone: httpx.AsyncClient) -> Json:
    return await submit(alone, inputs={"x": 1})


async def running(one: Worker) -> Json:
    held = await one.assignment()
    assert (await one.report(held, event("STARTED")))["state"] == "RUNNING"
    return held


async def test_an_assignment_says_all_that_a_worker_needs(alone: httpx.AsyncClient, one: Worker):
    content = {
        "id": "blur",
        "image": "blur:1",
        "constraints": {"cpu": 0.5},
        "timeouts": {"run_s": 9},
        "execution": {"env": {"A": "b"}},
        "output_specs": {"y": {"type": "int"}},
        "input_specs": {"x": {"type": "int"}},
    }
    shown = told(await alone.post("/definitions", json=content), 201)
    made = told(await alone.post("/definitions/blur/runs", json={"inputs": {"x": 1}}), 201)
    assert told(await alone.post("/definitions", json={**content, "execution": {"env": {"A": "new"}}}), 201)
    held = await one.assignment()
    assert set(held) >= set(FIELDS.split())
    assert (held["run_id"], held["attempt"], held["op_definition"]) == (made["id"], 1, "blur")
    assert (held["image"], held["bundle"], held["gpu_ids"], held["inputs"]) == ("blur:1", None, [], {"x": 1})
    for name in ("constraints", "timeouts", "execution", "output_specs"):
        assert held[name] == shown[name]


async def test_an_assignment_of_an_ad_hoc_run_has_the_same_fields(run: Json, one: Worker):
    held = await one.assignment()
    assert set(held) >= set(FIELDS.split())
    assert (held["op_definition"], held["output_specs"], held["inputs"]) == (None, {}, {"x": 1})
    assert held["execution"]["network"] is True


async def test_inputs_reach_the_worker_byte_for_byte(alone: httpx.AsyncClient, one: Worker):
    odd = '{"z":1E+5,"a":1.00000000000000000000000000001}'
    await alone.post("/runs", content=f'{{"image": "a", "inputs": {odd}}}'.encode())
    assert f'"inputs":{odd}' in (await one.claim(wait_s=20)).text


async def test_an_assignment_is_an_event_of_its_own(alone: httpx.AsyncClient, run: Json, one: Worker):
    await one.assignment()
    run = await get(alone, run)
    assert (run["state"], [row["type"] for row in run["events"]]) == ("ASSIGNED", ["ASSIGNED"])
    assert run["events"][0]["payload"]["worker_id"] == "w1"


async def test_a_claim_changes_nothing_and_may_be_repeated(alone: httpx.AsyncClient, run: Json, one: Worker):
    held = await one.assignment()
    before = await get(alone, run)
    for _ in range(2):
        assert told(await one.claim())["assignments"] == [held]
    assert told(await one.claim(held)) == {"assignments": [], "stop": [], "drain": False}
    assert await get(alone, run) == before
    await one.report(held, event("STARTED"))
    assert told(await one.claim())["assignments"] == []


async def test_a_claim_takes_no_more_than_it_asks_for(alone: httpx.AsyncClient, one: Worker):
    for _ in range(3):
        await submit(alone)
    first = await one.assignment()
    await one.assignment(first)
    assert told(await one.claim(most=0))["assignments"] == []
    assert len(told(await one.claim(most=2))["assignments"]) == 2
    assert [each["run_id"] for each in told(await one.claim(first, most=1))["assignments"]] != [first["run_id"]]


async def test_a_waiting_claim_is_woken_by_an_assignment(alone: httpx.AsyncClient, one: Worker):
    waiting = asyncio.create_task(one.assignment())
    await asyncio.sleep(0)
    run = await submit(alone)
    assert (await waiting)["run_id"] == run["id"]


async def test_a_waiting_claim_is_woken_by_a_stop(alone: httpx.AsyncClient, run: Json, one: Worker):
    held = await running(one)
    waiting = asyncio.create_task(one.claim(held, most=0, wait_s=25))
    await one.report(held, event("INFO", "still here"))
    await alone.post(f"/runs/{run['id']}/cancel")
    async with asyncio.timeout(4):
        claimed = told(await waiting)
    assert claimed["stop"] == [{"run_id": run["id"], "attempt": 1, "reason": "cancelled"}]


async def test_a_waiting_claim_is_woken_by_a_drain(alone: httpx.AsyncClient, one: Worker):
    waiting = asyncio.create_task(one.claim(most=0, wait_s=25))
    await one.beat()
    await alone.post("/workers/w1/drain")
    async with asyncio.timeout(4):
        assert told(await waiting)["drain"] is True


async def test_a_stop_is_said_for_as_long_as_the_worker_has_it(alone: httpx.AsyncClient, run: Json, one: Worker):
    held = await running(one)
    await alone.post(f"/runs/{run['id']}/cancel")
    stop = [{"run_id": run["id"], "attempt": 1, "reason": "cancelled"}]
    for answer in (await one.claim(held), await one.claim(held), await one.beat(held)):
        assert told(answer)["stop"] == stop
    await one.report(held, settled=True)
    assert told(await one.claim(held))["stop"] == []
    assert told(await one.beat())["stop"] == []


async def test_who_says_that_it_has_what_is_settled_is_told_to_stop_it(
    alone: httpx.AsyncClient, run: Json, one: Worker
):
    held = await running(one)
    await one.report(held, event("COMPLETED"), settled=True)
    stop = [{"run_id": run["id"], "attempt": 1, "reason": "released"}]
    assert told(await one.beat(held))["stop"] == stop


async def test_reports_tell_the_whole_life_of_an_attempt(alone: httpx.AsyncClient, run: Json, one: Worker):
    held = await one.assignment()
    at = "2024-05-06T07:08:09.123456+02:00"
    result = await one.report(held, {**event("STARTED"), "at": at}, event("INFO", "hello"), event("PROGRESS", 40))
    place = {"run_id": run["id"], "attempt": 1, "seq": 1}
    assert {name: result[name] for name in (*place, "ok", "code", "state")} == {
        **place,
        "ok": True,
        "code": None,
        "state": "RUNNING",
    }
    assert (await get(alone, run))["progress"] == 40
    summary = {"exit_code": 0, "peak_ram_mb": 12, "cpu_s": 0.5, "image_digest": "sha256:x", "gpu_ids": [0]}
    result = await one.report(held, event("COMPLETED", outputs={"y": 2}), summary=summary, settled=True)
    assert result["state"] == "COMPLETED"
    done = await get(alone, run)
    assert (done["outputs"], done["progress"], done["reason"]) == ({"y": 2}, 100, None)
    assert {name: done["execution_summary"][name] for name in summary} == summary
    assert done["execution_summary"]["worker_id"] == "w1"
    rows = await history(alone, run)
    assert [row["type"] for row in rows] == ["ASSIGNED", "STARTED", "INFO", "PROGRESS", "COMPLETED"]
    assert [row["id"] for row in rows] == list(range(5))
    assert [row["at"] for row in rows] == [None, "2024-05-06T05:08:09.123456+00:00", None, None, None]
    (attempt,) = await attempts(alone, run)
    assert attempt["settled_at"] is not None


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels > 1 else []


async def test_reports_are_judged_one_by_one(alone: httpx.AsyncClient, one: Worker):
    runs = [await submit(alone) for _ in range(3)]
    first = await one.assignment()
    second = await one.assignment(first)
    third = await one.assignment(first, second)
    good = [one.report_of(held, event("STARTED")) for held in (first, second, third)]
    far = "0001-01-01T00:00:00+14:00"
    nonsense: list[Any] = [
        5,
        None,
        "report",
        [],
        {},
        {"run_id": 5, "attempt": {}, "seq": "one"},
        {**good[0], "seq": "1"},
        {**good[0], "colour": "red"},
        {**good[0], "events": [event("BOGUS")]},
        {**good[0], "events": [{**event("INFO"), "at": "yesterday"}]},
        {**good[0], "events": [{**event("INFO"), "at": "2024-01-01T00:00:00"}]},
        {**good[0], "events": [{**event("INFO"), "at": far}]},
        {**good[0], "events": [event("PROGRESS", 200)]},
        {**good[0], "events": [event("COMPLETED")]},
        {**good[0], "events": [event("STARTED", worker_id=5)]},
        {**good[0], "lease_token": "wrong"},
        {**good[0], "attempt": 2},
        {**good[0], "run_id": str(uuid4())},
        {**good[0], "run_id": good[0]["run_id"].upper()},
        {**good[0], "run_id": "\N{SNOWMAN}"},
        {**good[0], "run_id": "\0"},
        {**good[0], "seq": 10**30},
        {**good[0], "events": [event("INFO", "\0")]},
        {**good[0], "events": [event("INFO", x=10**30)]},
        {**good[0], "events": [event("INFO", x=nested(101))]},
        {**good[0], "events": [event("INFO", "x" * 70_000)]},
    ]
    results = told(await one.send(good[1], *nonsense, good[0], good[2]))["results"]
    assert len(results) == len(nonsense) + 3
    assert [result["ok"] for result in results] == [True, *[False] * len(nonsense), True, True]
    assert all(result["code"] for result in results[1:-2])
    for run in runs:
        assert (await get(alone, run))["state"] == "RUNNING"
        assert [row["type"] for row in await history(alone, run)] == ["ASSIGNED", "STARTED"]


async def test_a_refused_report_says_why_and_changes_nothing(alone: httpx.AsyncClient, run: Json, one: Worker):
    held = await one.assignment()
    before = await get(alone, run)
    for change, code in (
        ({"lease_token": "wrong"}, "lease_lost"),
        ({"run_id": str(uuid4())}, "run_not_found"),
        ({"attempt": 2}, "attempt_not_found"),
        ({"events": [event("COMPLETED")]}, "transition_refused"),
        ({"events": [event("RETRIED")]}, "transition_refused"),
        ({"events": [event("STARTED"), event("PROGRESS", "5")]}, "malformed"),
        ({"seq": None}, "malformed"),
    ):
        (result,) = told(await one.send({**one.report_of(held), **change}))["results"]
        assert (result["ok"], result["code"]) == (False, code)
    assert await get(alone, run) == before


async def test_a_report_that_is_repeated_is_well_and_changes_nothing(alone: httpx.AsyncClient, run: Json, one: Worker):
    held = await running(one)
    report = one.report_of(held, event("INFO", "once"), event("PROGRESS", 10))
    told(await one.send(report))
    before = await get(alone, run)
    for repeated in (report, {**report, "events": [event("PROGRESS", 99)]}, {**report, "seq": 1}):
        (result,) = told(await one.send(repeated))["results"]
        assert (result["ok"], result["code"], result["state"]) == (True, None, "RUNNING")
    (first, second) = told(await one.send(report, report))["results"]
    assert first == second
    assert await get(alone, run) == before


async def test_a_last_report_may_be_repeated_after_the_run_went_on(alone: httpx.AsyncClient, one: Worker):
    run = await submit(alone, retry_policy={"max_attempts": 2})
    held = await running(one)
    last = one.report_of(held, event("FAILED", reason="op_error"), settled=True)
    assert told(await one.send(last))["results"][0]["ok"] is True
    again = await one.assignment()
    assert again["attempt"] == 2
    before = await get(alone, run)
    (result,) = told(await one.send(last))["results"]
    assert (result["ok"], result["code"]) == (True, None)
    newer = {**last, "seq": last["seq"] + 1}
    (result,) = told(await one.send(newer))["results"]
    assert (result["ok"], result["code"]) == (False, "lease_lost")
    assert await get(alone, run) == before


async def test_a_report_of_1000_events_is_read_in_pages(alone: httpx.AsyncClient, run: Json, one: Worker):
    held = await running(one)
    result = await one.report(held, *(event("PROGRESS", number % 100) for number in range(1000)))
    assert result["ok"] is True
    answer = told(await alone.get(f"/runs/{run['id']}/events"))
    assert ([row["id"] for row in answer["events"]], answer["has_more"]) == (list(range(1000)), True)
    answer = told(await alone.get(f"/runs/{run['id']}/events", params={"after": 1}))
    assert ([row["id"] for row in answer["events"]], answer["has_more"]) == (list(range(2, 1002)), False)
    assert (await one.report(held, *(event("PROGRESS", 1) for _ in range(1001))))["code"] == "malformed"


async def test_outputs_may_be_nested_as_deeply_as_an_op_may_write_them(
    alone: httpx.AsyncClient, run: Json, one: Worker
):
    held = await running(one)
    outputs = {"y": nested(99)}
    assert (await one.report(held, event("COMPLETED", outputs=outputs), settled=True))["ok"] is True
    assert (await get(alone, run))["outputs"] == outputs


@pytest.mark.parametrize("wrong", ['"\\ud800"', "NaN", "[" * 2000 + "]" * 2000, "[" * 900 + "]" * 900])
async def test_reports_that_cannot_be_told_apart_are_refused_together(one: Worker, wrong: str):
    for body in (
        f'{{"instance": "{one.instance}", "reports": [{{}}, {wrong}]}}',
        f'{{"instance": {wrong}, "reports": []}}',
        f'{{"instance": "{one.instance}", "reports": [], "x": {wrong}}}',
        f'{{"instance": "{one.instance}", "reports": [], "\\ud800": {wrong}}}',
    ):
        answer = await one.api.post("/workers/w1/reports", content=body.encode())
        assert answer.status_code == 422 or (wrong.startswith("[[") and answer.status_code == 200)


async def test_a_run_that_went_on_elsewhere_is_lost_to_its_former_holder(
    alone: httpx.AsyncClient, run: Json, one: Worker
):
    held = await running(one)
    await alone.post(f"/runs/{run['id']}/cancel")
    for late in (event("INFO"), event("PROGRESS", 5), event("COMPLETED", outputs={}), event("FAILED")):
        assert (await one.report(held, late))["code"] == "lease_lost"
    before = await get(alone, run)
    assert (before["state"], before["progress"], before["outputs"]) == ("CANCELLED", 0, None)
    await alone.post(f"/runs/{run['id']}/retry")
    assert (await one.report(held, event("COMPLETED")))["code"] == "lease_lost"
    assert (await get(alone, run))["state"] == "PENDING"


async def test_a_cancelled_run_keeps_its_room_until_it_is_settled(alone: httpx.AsyncClient, worker: Hire, run: Json):
    one = await worker(slots=1).registered()
    held = await running(one)
    assert told(await alone.post(f"/runs/{run['id']}/cancel"))["state"] == "CANCELLED"
    assert told(await alone.post(f"/runs/{run['id']}/retry"))["state"] == "PENDING"
    assert told(await alone.get("/workers/w1"))["room"]["slots"] == 0
    other = await worker("w2").registered()
    assert told(await other.claim(wait_s=0.3))["assignments"] == []
    waiting = asyncio.create_task(other.claim(wait_s=20))
    second = asyncio.create_task(one.claim(wait_s=20))
    assert (await one.report(held, settled=True))["ok"] is True
    done, rest = await asyncio.wait([waiting, second], return_when=asyncio.FIRST_COMPLETED)
    assert told(done.pop().result())["assignments"][0]["attempt"] == 2
    for task in rest:
        task.cancel()


async def test_a_declined_assignment_goes_back_to_the_queue_and_spends_nothing(
    alone: httpx.AsyncClient, run: Json, one: Worker
):
    held = await one.assignment()
    result = await one.report(held, declined=True)
    assert (result["ok"], result["state"]) == (True, "PENDING")
    again = await one.assignment()
    assert (again["run_id"], again["attempt"]) == (run["id"], 2)
    assert again["lease_token"] != held["lease_token"]
    shown = await get(alone, run)
    assert (shown["user_failures"], shown["infra_losses"]) == (0, 0)
    first, _ = await attempts(alone, run)
    assert (first["state"], first["reason"], first["settled_at"] is None) == ("FAILED", "declined", False)
    rows = await history(alone, run)
    assert [row["type"] for row in rows] == ["ASSIGNED", "FAILED", "RETRIED", "ASSIGNED"]


async def test_a_reported_failure_is_judged_by_its_reason(alone: httpx.AsyncClient, worker: Hire):
    one = await worker(cpu=8).registered()
    for payload, state, spent in (
        ({"reason": "op_error", "error_message": "no", "exit_code": 3}, "PENDING", (1, 0)),
        ({"reason": "op_error", "retryable": False}, "FAILED", (1, 0)),
        ({"reason": "invalid_output"}, "FAILED", (1, 0)),
        ({"reason": "start_failed"}, "PENDING", (0, 1)),
        ({"reason": "image_not_found"}, "FAILED", (1, 0)),
    ):
        run = await submit(alone, retry_policy={"max_attempts": 2})
        held = await running(one)
        assert (await one.report(held, event("FAILED", **payload)))["state"] == state
        run = await get(alone, run)
        assert (run["state"], (run["user_failures"], run["infra_losses"])) == (state, spent)
        first = (await attempts(alone, run))[0]
        assert (first["state"], first["reason"], first["settled_at"]) == ("FAILED", payload["reason"], None)


async def test_what_a_worker_holds_is_not_reported_from_outside(alone: httpx.AsyncClient, run: Json, one: Worker):
    types, held = ("STARTED", "PROGRESS", "COMPLETED", "FAILED"), await one.assignment()
    for _ in range(2):
        before = await get(alone, run)
        for type in types:
            refused(await say(alone, run, type, ["not even a fitting msg"]), 409, "attempt_is_leased")
            refused(await say(alone, run, type, attempt=2), 409, "stale_attempt")
        assert await get(alone, run) == before
        await one.report(held, event("STARTED"))
    await one.report(held, event("COMPLETED"))
    for type in types:
        refused(await say(alone, run, type), 400, "run_locked")


async def test_what_a_worker_holds_may_be_noted_on_and_cancelled_from_outside(
    alone: httpx.AsyncClient, run: Json, one: Worker
):
    await running(one)
    for type in ("INFO", "ERROR"):
        assert told(await say(alone, run, type, "look"))["state"] == "RUNNING"
    assert told(await say(alone, run, "CANCELLED", "enough"))["state"] == "CANCELLED"


async def test_what_a_worker_holds_may_be_updated(alone: httpx.AsyncClient, one: Worker):
    for state in ("COMPLETED", "FAILED", "CANCELLED"):
        run = await submit(alone)
        held = await running(one)
        run = told(await alone.patch(f"/runs/{run['id']}", json={"state": state, "outputs": {"x": 1}}))
        assert (run["state"], run["outputs"]) == (state, {"x": 1})
        assert (run["events"][-1]["type"], run["events"][-1]["msg"]) == (state, "Set by update")
        assert [each["run_id"] for each in told(await one.claim(held))["stop"]] == [run["id"]]
        assert (await one.report(held, event("COMPLETED", outputs={"x": 2})))["code"] == "lease_lost"
        assert (await get(alone, run))["outputs"] == {"x": 1}


async def test_a_report_in_the_name_of_another_worker_is_refused(
    alone: httpx.AsyncClient, run: Json, one: Worker, worker: Hire
):
    held = await one.assignment()
    other = worker("w2")
    refused(await other.send(one.report_of(held)), 409, "not_registered")
    assert (await get(alone, run))["state"] == "ASSIGNED"
