"""What a run is told, and tells, of being tried again: its policy, its pauses, both budgets, the time it waits for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from .actors import Json, attempts, get, refused, say, submit, told
from .test_run_shape import MOMENT


async def fail(api: httpx.AsyncClient, run: Json, **payload: Any) -> Json:
    """One more attempt, from outside, that fails."""
    told(await say(api, run, "STARTED"))
    return told(await say(api, run, "FAILED", payload=payload))


def in_s(run: Json, name: str) -> float:
    """How long after its last change that time is."""
    return (datetime.fromisoformat(run[name]) - datetime.fromisoformat(run["updated_at"])).total_seconds()


async def test_both_budgets_and_the_reason_are_shown(api: httpx.AsyncClient):
    run = await submit(api, retry_policy={"max_attempts": 2})
    assert (run["user_failures"], run["infra_losses"], run["reason"]) == (0, 0, None)
    run = await fail(api, run, reason="disk_full")
    assert (run["state"], run["user_failures"], run["infra_losses"], run["reason"]) == ("PENDING", 0, 1, None)
    run = await fail(api, run, reason="oom_killed")
    assert (run["state"], run["user_failures"], run["infra_losses"]) == ("PENDING", 1, 1)
    run = await fail(api, run)
    assert (run["state"], run["user_failures"], run["infra_losses"], run["reason"]) == ("FAILED", 2, 1, "external")
    assert [each["reason"] for each in await attempts(api, run)] == ["disk_full", "oom_killed", "external"]
    (listed,) = told(await api.get("/runs", params={"limit": 1}))["data"]
    assert {name: listed[name] for name in ("user_failures", "infra_losses", "reason")} == {
        "user_failures": 2,
        "infra_losses": 1,
        "reason": "external",
    }


async def test_a_pause_is_shown_as_the_time_before_which_the_run_is_not_tried_again(api: httpx.AsyncClient):
    run = await submit(api, priority=0, retry_policy={"max_attempts": 3, "backoff_s": 100, "backoff_factor": 3})
    for pause_s in (100, 300):
        run = await fail(api, run)
        assert (run["state"], in_s(run, "run_at"), in_s(run, "queue_at")) == ("PENDING", pause_s, pause_s)
        assert MOMENT.fullmatch(run["run_at"])
    told(await api.post(f"/runs/{run['id']}/cancel"))
    run = told(await api.post(f"/runs/{run['id']}/retry"))
    assert (run["state"], run["run_at"], in_s(run, "queue_at")) == ("PENDING", None, 0)


async def test_an_op_that_says_so_is_not_tried_again(api: httpx.AsyncClient):
    run = await fail(api, await submit(api, retry_policy={"max_attempts": 9}), reason="op_error", retryable=False)
    assert (run["state"], run["user_failures"]) == ("FAILED", 1)


async def test_a_delayed_run_stands_in_the_queue_from_its_time_on(api: httpx.AsyncClient):
    at = datetime.now(UTC) + timedelta(hours=2)
    run = await submit(api, run_at=at.isoformat(), priority=3)
    assert datetime.fromisoformat(run["queue_at"]) == at - timedelta(hours=3)
    run = told(await api.patch(f"/runs/{run['id']}", json={"priority": 7}))
    assert datetime.fromisoformat(run["queue_at"]) == at - timedelta(hours=7)
    assert (run["state"], run["run_at"]) == ("PENDING", at.isoformat(timespec="microseconds"))


async def test_only_what_ended_can_be_retried_by_hand_so_a_pause_cannot(api: httpx.AsyncClient):
    run = await fail(api, await submit(api, retry_policy={"max_attempts": 2, "backoff_s": 100}))
    refused(await api.post(f"/runs/{run['id']}/retry"), 400)
    assert (await get(api, run))["run_at"] == run["run_at"]
