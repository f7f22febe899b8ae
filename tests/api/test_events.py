"""Events from outside: what the table lets through, in which order refusals come, how events are read."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from .actors import attempts, get, history, in_state, pointers, refused, say, submit, told

TABLE = {
    "PENDING": {"STARTED": "RUNNING", "CANCELLED": "CANCELLED", "INFO": "PENDING", "ERROR": "PENDING"},
    "RUNNING": {
        "PROGRESS": "RUNNING",
        "COMPLETED": "COMPLETED",
        "FAILED": "FAILED",
        "CANCELLED": "CANCELLED",
        "INFO": "RUNNING",
        "ERROR": "RUNNING",
    },
    "COMPLETED": {},
    "FAILED": {"RETRIED": "PENDING"},
    "CANCELLED": {"RETRIED": "PENDING"},
}
TYPES = ("ASSIGNED", "STARTED", "INFO", "PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "ERROR", "RETRIED")
TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")


@pytest.mark.parametrize("state", TABLE)
@pytest.mark.parametrize("type", TYPES)
async def test_an_event_is_let_through_by_the_table_alone(api: httpx.AsyncClient, state: str, type: str):
    run = await in_state(api, state)
    answer = await say(api, run, type, 7 if type == "PROGRESS" else "so it is")
    if type in TABLE[state]:
        after = told(answer)
        assert after == await get(api, run)
        assert (after["state"], after["events_count"]) == (TABLE[state][type], run["events_count"] + 1)
        assert after["events"][-1]["type"] == type
    else:
        refused(answer, 400, "run_locked" if state in TERMINAL else "transition_refused")
        assert await get(api, run) == run


async def test_progress_is_a_whole_number_from_0_to_100(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    for progress in (0, 1, 50, 100, 3):
        assert told(await say(api, run, "PROGRESS", progress))["progress"] == progress
    before = await get(api, run)
    for wrong in (True, False, 5.0, 5.5, "5", "", None, -1, 101, 10**18, [5], {"msg": 5}):
        assert pointers(await say(api, run, "PROGRESS", wrong)) == {"/msg"}
    assert await get(api, run) == before


@pytest.mark.parametrize("type", ["STARTED", "INFO", "ERROR", "CANCELLED"])
@pytest.mark.parametrize("wrong", [5, True, None, [], {}, 1.5])
async def test_the_msg_of_other_events_is_a_text(api: httpx.AsyncClient, type: str, wrong: Any):
    assert pointers(await say(api, await submit(api), type, wrong)) == {"/msg"}


async def test_started_says_who_executes_it(api: httpx.AsyncClient):
    for gpu in (None, 0, 3, 1.5, "cuda:1"):
        payload = {"worker_id": "my script", **({} if gpu is None else {"gpu_id": gpu})}
        run = told(await say(api, await submit(api), "STARTED", payload=payload))
        assert (run["execution_summary"]["worker_id"], run["execution_summary"]["gpu_id"]) == ("my script", gpu)
        assert run["events"][0]["payload"] == payload
        assert (await attempts(api, run))[0]["started_at"] == run["events"][0]["t"]


async def test_completed_may_bring_outputs(api: httpx.AsyncClient):
    for payload, outputs in ((None, None), ({}, None), ({"outputs": {}}, {}), ({"outputs": {"x": [1]}}, {"x": [1]})):
        run = told(await say(api, await in_state(api, "RUNNING"), "COMPLETED", "done", payload=payload))
        assert (run["state"], run["outputs"], run["progress"], run["reason"]) == ("COMPLETED", outputs, 100, None)
        (attempt,) = await attempts(api, run)
        assert attempt["finished_at"] == attempt["settled_at"] == run["events"][-1]["t"]
        assert run["execution_summary"]["duration_ms"] >= 0


async def test_outputs_set_before_survive_a_completion_without_any(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    await api.patch(f"/runs/{run['id']}", json={"outputs": {"early": 1}})
    assert told(await say(api, run, "COMPLETED"))["outputs"] == {"early": 1}


async def test_failed_says_why(api: httpx.AsyncClient):
    said = {"error_message": "no luck", "reason": "op_error", "exit_code": 3, "signal": 9, "retryable": False}
    run = told(await say(api, await in_state(api, "RUNNING"), "FAILED", payload=said))
    summary = run["execution_summary"]
    assert (run["state"], run["reason"]) == ("FAILED", "op_error")
    assert (summary["error_message"], summary["exit_code"], summary["signal"]) == ("no luck", 3, 9)
    assert (await attempts(api, run))[0]["reason"] == "op_error"


@pytest.mark.parametrize(
    ("type", "payload", "place"),
    [
        ("STARTED", {"worker_id": 5}, "/payload/worker_id"),
        ("STARTED", {"gpu_id": True}, "/payload/gpu_id"),
        ("STARTED", {"gpu_id": [0]}, "/payload/gpu_id"),
        ("COMPLETED", {"outputs": []}, "/payload/outputs"),
        ("COMPLETED", {"outputs": "x"}, "/payload/outputs"),
        ("FAILED", {"error_message": 5}, "/payload/error_message"),
        ("FAILED", {"reason": "bad luck"}, "/payload/reason"),
        ("FAILED", {"reason": "worker_lost"}, "/payload/reason"),
        ("FAILED", {"exit_code": "3"}, "/payload/exit_code"),
        ("FAILED", {"retryable": "no"}, "/payload/retryable"),
    ],
)
async def test_a_payload_that_means_nothing_is_refused(api: httpx.AsyncClient, type: str, payload: Any, place: str):
    run = await (submit(api) if type == "STARTED" else in_state(api, "RUNNING"))
    assert pointers(await say(api, run, type, payload=payload)) == {place}
    assert await get(api, run) == run


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"type": "INFO"}, "/msg"),
        ({"msg": "hi"}, "/type"),
        ({"type": "BOGUS", "msg": ""}, "/type"),
        ({"type": "info", "msg": ""}, "/type"),
        ({"type": 5, "msg": ""}, "/type"),
        ({"type": "INFO", "msg": "", "payload": []}, "/payload"),
        ({"type": "INFO", "msg": "", "payload": "text"}, "/payload"),
        ({"type": "INFO", "msg": "", "attempt": "1"}, "/attempt"),
        ({"type": "INFO", "msg": "", "attempt": 0}, "/attempt"),
        ({"type": "INFO", "msg": "", "attempt": 1.0}, "/attempt"),
        ({"type": "INFO", "msg": "", "attempt": 2**31}, "/attempt"),
    ],
)
async def test_a_misshapen_event_is_refused(api: httpx.AsyncClient, body: Any, place: str):
    run = await submit(api)
    assert pointers(await api.post(f"/runs/{run['id']}/events", json=body)) == {place}


async def test_refusals_come_in_order_found_then_lease_then_locked_then_payload(api: httpx.AsyncClient):
    nowhere, over = {"id": str(uuid4())}, await in_state(api, "COMPLETED")
    refused(await say(api, nowhere, "PROGRESS", "5", attempt=3), 404, "run_not_found")
    refused(await say(api, over, "PROGRESS", "5", attempt=3), 409, "stale_attempt")
    refused(await say(api, over, "PROGRESS", "5", attempt=1), 400, "run_locked")
    assert pointers(await say(api, await in_state(api, "RUNNING"), "PROGRESS", "5", attempt=1)) == {"/msg"}


async def test_an_event_for_another_attempt_is_stale(api: httpx.AsyncClient):
    run = await in_state(api, "FAILED")
    run = told(await api.post(f"/runs/{run['id']}/retry"))
    for attempt in (1, 3):
        refused(await say(api, run, "INFO", attempt=attempt), 409, "stale_attempt")
    assert await get(api, run) == run
    assert told(await say(api, run, "STARTED", attempt=2))["state"] == "RUNNING"


async def test_failures_are_retried_while_attempts_are_left(api: httpx.AsyncClient):
    run = await submit(api, retry_policy={"max_attempts": 3})
    for attempt in (1, 2, 3):
        assert (await get(api, run))["current_attempt"] == attempt
        await say(api, run, "STARTED")
        run = told(await say(api, run, "FAILED", f"failure {attempt}"))
        assert (run["user_failures"], run["infra_losses"]) == (attempt, 0)
    assert (run["state"], run["reason"], run["current_attempt"]) == ("FAILED", "external", 3)
    assert [each["state"] for each in await attempts(api, run)] == ["FAILED"] * 3
    rows = await history(api, run)
    assert [row["type"] for row in rows] == ["STARTED", "FAILED", "RETRIED"] * 2 + ["STARTED", "FAILED"]
    assert [row["id"] for row in rows] == list(range(8))
    assert [row["attempt"] for row in rows] == [1, 1, 2, 2, 2, 3, 3, 3]
    assert {row["state"] for row in rows} == {"FAILED"}


@pytest.mark.parametrize(
    ("payload", "state", "spent"),
    [
        ({"reason": "op_error"}, "PENDING", (1, 0)),
        ({"reason": "op_error", "retryable": False}, "FAILED", (1, 0)),
        ({"reason": "oom_killed"}, "PENDING", (1, 0)),
        ({"reason": "run_timeout"}, "PENDING", (1, 0)),
        ({"reason": "invalid_output"}, "FAILED", (1, 0)),
        ({"reason": "image_not_found"}, "FAILED", (1, 0)),
        ({"reason": "start_failed"}, "PENDING", (0, 1)),
        ({"reason": "disk_full"}, "PENDING", (0, 1)),
        ({"reason": "drained"}, "PENDING", (0, 0)),
    ],
)
async def test_a_reason_decides_what_is_spent_and_whether_again(
    api: httpx.AsyncClient, payload: Any, state: str, spent: tuple[int, int]
):
    run = await in_state(api, "RUNNING", retry_policy={"max_attempts": 2})
    run = told(await say(api, run, "FAILED", payload=payload))
    assert (run["state"], (run["user_failures"], run["infra_losses"])) == (state, spent)


async def test_the_infrastructure_has_a_budget_of_its_own(api: httpx.AsyncClient):
    run = await submit(api)
    for losses in range(1, 6):
        await say(api, run, "STARTED")
        run = told(await say(api, run, "FAILED", payload={"reason": "start_failed"}))
        assert (run["infra_losses"], run["user_failures"]) == (losses, 0)
    assert (run["state"], run["current_attempt"]) == ("FAILED", 5)


async def test_events_are_read_from_a_number_on(api: httpx.AsyncClient):
    run = await submit(api)
    for number in range(4):
        await say(api, run, "INFO", f"note {number}", payload={"n": number})
    for after in (-1, 0, 1, 2, 3, 99):
        answer = told(await api.get(f"/runs/{run['id']}/events", params={"after": after}))
        assert [row["id"] for row in answer["events"]] == list(range(after + 1, 4))
        assert answer["has_more"] is False
    rows = await history(api, run)
    assert [(row["msg"], row["payload"]) for row in rows] == [(f"note {n}", {"n": n}) for n in range(4)]
    assert [row["t"] for row in rows] == sorted(row["t"] for row in rows)


async def test_every_row_shows_the_state_of_the_run_now(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    assert [row["state"] for row in await history(api, run)] == ["RUNNING"]
    await say(api, run, "COMPLETED")
    assert [row["state"] for row in await history(api, run)] == ["COMPLETED", "COMPLETED"]


async def test_events_of_one_attempt_keep_their_numbers(api: httpx.AsyncClient):
    run = await in_state(api, "FAILED")
    await api.post(f"/runs/{run['id']}/retry")
    for attempt, ids in ((1, [0, 1]), (2, [2]), (3, [])):
        answer = told(await api.get(f"/runs/{run['id']}/events", params={"attempt": attempt}))
        assert [row["id"] for row in answer["events"]] == ids
    answer = told(await api.get(f"/runs/{run['id']}/events", params={"attempt": 1, "after": 0}))
    assert [row["id"] for row in answer["events"]] == [1]


@pytest.mark.parametrize("query", ["after=x", "after=1.5", "after=", "attempt=0", "attempt=x"])
async def test_a_misshapen_question_for_events_is_refused(api: httpx.AsyncClient, query: str):
    run = await submit(api)
    name = query.split("=")[0]
    assert pointers(await api.get(f"/runs/{run['id']}/events?{query}")) == {f"/query/{name}"}
