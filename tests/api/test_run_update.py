"""PATCH: state by the table, outputs wholesale, priority; retry and cancel, their words."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from .actors import attempts, get, history, in_state, pointers, refused, say, submit, told


async def patch(api: httpx.AsyncClient, run: dict[str, Any], **body: Any) -> httpx.Response:
    return await api.patch(f"/runs/{run['id']}", json=body)


WAYS = {
    ("PENDING", "RUNNING"): "STARTED",
    ("PENDING", "CANCELLED"): "CANCELLED",
    ("RUNNING", "COMPLETED"): "COMPLETED",
    ("RUNNING", "FAILED"): "FAILED",
    ("RUNNING", "CANCELLED"): "CANCELLED",
    ("FAILED", "PENDING"): "RETRIED",
    ("CANCELLED", "PENDING"): "RETRIED",
}
STATES = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")


@pytest.mark.parametrize(("before", "after"), WAYS)
async def test_a_state_is_set_by_the_event_that_leads_to_it(api: httpx.AsyncClient, before: str, after: str):
    run = await in_state(api, before)
    changed = told(await patch(api, run, state=after))
    assert changed == await get(api, run)
    assert changed["state"] == after
    rows = (await history(api, run))[run["events_count"] :]
    assert [(row["type"], row["msg"]) for row in rows] == [(WAYS[before, after], "Set by update")]


@pytest.mark.parametrize("before", STATES)
async def test_what_the_table_forbids_is_refused_and_changes_nothing(api: httpx.AsyncClient, before: str):
    run = await in_state(api, before)
    for after in {*STATES, "ASSIGNED"} - {before} - {to for at, to in WAYS if at == before}:
        refused(await patch(api, run, state=after, outputs={"x": 1}, priority=9), 400)
    assert await get(api, run) == run


@pytest.mark.parametrize("state", STATES)
async def test_the_same_state_is_no_change(api: httpx.AsyncClient, state: str):
    run = await in_state(api, state)
    assert told(await patch(api, run, state=state)) == run
    assert told(await patch(api, run)) == run
    assert told(await patch(api, run, state=None, outputs=None, priority=None)) == run


@pytest.mark.parametrize("state", ["ASSIGNED", "BOGUS", "", "running"])
async def test_an_unknown_or_forbidden_state_is_refused(api: httpx.AsyncClient, state: str):
    refused(await patch(api, await submit(api), state=state), 400)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"state": 5}, "/state"),
        ({"outputs": []}, "/outputs"),
        ({"outputs": "{}"}, "/outputs"),
        ({"priority": "1"}, "/priority"),
        ({"priority": 1001}, "/priority"),
        ({"priority": 1.0}, "/priority"),
    ],
)
async def test_a_misshapen_update_is_refused(api: httpx.AsyncClient, body: Any, place: str):
    run = await submit(api)
    assert pointers(await patch(api, run, **body)) == {place}
    assert await get(api, run) == run


async def test_a_failure_that_is_set_is_not_retried(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING", retry_policy={"max_attempts": 5})
    run = told(await patch(api, run, state="FAILED"))
    assert (run["state"], run["current_attempt"], run["user_failures"], run["reason"]) == ("FAILED", 1, 1, "external")


async def test_pending_by_update_opens_the_next_attempt_beyond_the_budget(api: httpx.AsyncClient):
    run = told(await patch(api, await in_state(api, "FAILED"), state="PENDING"))
    assert (run["state"], run["current_attempt"], run["reason"]) == ("PENDING", 2, None)
    assert [each["state"] for each in await attempts(api, run)] == ["FAILED", "PENDING"]


async def test_outputs_are_replaced_wholesale_and_without_an_event(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    for outputs in ({"a": 1, "b": {"c": 2}}, {"b": {}}, {}):
        changed = told(await patch(api, run, outputs=outputs))
        assert (changed["outputs"], changed["events_count"]) == (outputs, run["events_count"])
        assert (await attempts(api, run))[0]["outputs"] == outputs
    assert told(await patch(api, run, outputs=None))["outputs"] == {}


async def test_outputs_belong_to_the_current_attempt(api: httpx.AsyncClient):
    run = await in_state(api, "FAILED")
    await patch(api, run, outputs={"of": 1})
    run = told(await patch(api, run, state="PENDING", outputs={"of": 2}))
    assert run["outputs"] == {"of": 2}
    assert [each["outputs"] for each in await attempts(api, run)] == [{"of": 1}, {"of": 2}]


async def test_completed_and_its_outputs_are_set_in_one(api: httpx.AsyncClient):
    run = told(await patch(api, await in_state(api, "RUNNING"), state="COMPLETED", outputs={"x": 1}, priority=7))
    assert (run["state"], run["outputs"], run["priority"], run["progress"]) == ("COMPLETED", {"x": 1}, 7, 100)
    (attempt,) = await attempts(api, run)
    assert attempt["finished_at"] is not None
    assert run["execution_summary"]["duration_ms"] >= 0


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_outputs_and_priority_may_change_on_a_terminal_run(api: httpx.AsyncClient, state: str):
    run = await in_state(api, state)
    changed = told(await patch(api, run, outputs={"late": True}, priority=-3))
    assert (changed["state"], changed["outputs"], changed["priority"]) == (state, {"late": True}, -3)
    assert changed["events"] == run["events"]


async def test_a_new_priority_moves_the_run_in_the_queue(api: httpx.AsyncClient):
    run = await submit(api, priority=0)
    changed = told(await patch(api, run, priority=10))
    was, now = datetime.fromisoformat(run["queue_at"]), datetime.fromisoformat(changed["queue_at"])
    assert was - now == timedelta(hours=10)
    assert told(await patch(api, run, priority=0))["queue_at"] == run["queue_at"]


async def test_unknown_members_of_an_update_are_passed_over(api: httpx.AsyncClient):
    run = await submit(api)
    assert told(await patch(api, run, colour="red", image="other")) == run


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
async def test_a_retry_opens_a_new_attempt(api: httpx.AsyncClient, state: str):
    run = await in_state(api, state)
    retried = told(await api.post(f"/runs/{run['id']}/retry"))
    assert retried == await get(api, run)
    assert (retried["state"], retried["current_attempt"]) == ("PENDING", 2)
    (row,) = retried["events"]
    assert (row["type"], row["msg"], row["payload"]) == ("RETRIED", "Manual retry", {"force": True})
    assert (row["id"], row["attempt"]) == (run["events_count"], 2)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETED"])
async def test_what_has_not_failed_is_not_retried(api: httpx.AsyncClient, state: str):
    run = await in_state(api, state)
    refused(await api.post(f"/runs/{run['id']}/retry"), 400)
    assert await get(api, run) == run


async def test_retries_by_hand_go_beyond_the_budgets(api: httpx.AsyncClient):
    run = await in_state(api, "FAILED")
    for attempt in (2, 3, 4):
        assert told(await api.post(f"/runs/{run['id']}/retry"))["current_attempt"] == attempt
        await say(api, run, "STARTED")
        assert told(await say(api, run, "FAILED"))["user_failures"] == attempt


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
async def test_a_cancel_is_answered_at_once(api: httpx.AsyncClient, state: str):
    run = await in_state(api, state)
    cancelled = told(await api.post(f"/runs/{run['id']}/cancel"))
    assert cancelled == await get(api, run)
    assert (cancelled["state"], cancelled["reason"]) == ("CANCELLED", "cancelled")
    row = cancelled["events"][-1]
    assert (row["type"], row["msg"], row["payload"]) == ("CANCELLED", "Cancelled by user", None)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_a_terminal_run_is_not_cancelled(api: httpx.AsyncClient, state: str):
    run = await in_state(api, state)
    detail = refused(await api.post(f"/runs/{run['id']}/cancel"), 400)["detail"]
    assert detail == f"Run is already in terminal state {state}"
    assert await get(api, run) == run


async def test_retry_and_cancel_take_any_body_for_none(api: httpx.AsyncClient):
    run = await submit(api)
    assert told(await api.post(f"/runs/{run['id']}/cancel", content=b"{broken"))["state"] == "CANCELLED"
    assert told(await api.post(f"/runs/{run['id']}/retry", json=[1]))["state"] == "PENDING"
