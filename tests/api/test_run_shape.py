"""What a run, an attempt and an event look like: every field, always, in the form that clients know."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from .actors import attempts, get, history, in_state, refused, say, submit, told

KEPT = """id state priority image op_definition inputs outputs constraints retry_policy event_delivery progress
    current_attempt events execution_summary created_at updated_at"""
OURS = """reason version revision submitted_by tags run_at timeouts user_failures infra_losses events_count queue_at
    delete_after_s pinned replay_of"""
ATTEMPT = """id op_run_id attempt state progress events inputs outputs execution_summary constraints started_at
    finished_at reason settled_at"""
SUMMARY = """duration_ms worker_id error_message gpu_id gpu_ids exit_code signal peak_ram_mb peak_vram_mb cpu_s
    image_digest"""
POLICY = {
    "max_attempts": 1,
    "backoff_s": 0,
    "backoff_factor": 2,
    "max_backoff_s": None,
    "jitter": 0,
    "retry_on": None,
    "fail_on": [],
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")


async def test_a_new_run_waits_for_its_first_attempt(api: httpx.AsyncClient):
    run = await submit(api, "alpine:3")
    assert run["state"] == "PENDING"
    assert (run["image"], run["op_definition"]) == ("alpine:3", None)
    assert (run["priority"], run["current_attempt"], run["progress"]) == (5, 1, 0)
    assert (run["inputs"], run["outputs"]) == ({}, None)
    assert run["constraints"] == {"cpu": None, "ram_mb": None, "vram_mb": None}
    assert run["retry_policy"] == POLICY
    assert run["event_delivery"] is None
    assert run["execution_summary"] == dict.fromkeys(SUMMARY.split())


async def test_creation_writes_no_event(api: httpx.AsyncClient):
    run = await submit(api)
    assert (run["events"], run["events_count"], await history(api, run)) == ([], 0, [])


async def test_what_creation_answers_is_what_get_answers(api: httpx.AsyncClient):
    delivery = {"topic": "t", "attributes": {"b": 1, "a": 2}}
    full = {"inputs": {"x": 1}, "priority": -7, "constraints": {"cpu": 0.25, "ram_mb": 3}, "event_delivery": delivery}
    for run in (await submit(api), await submit(api, retry_policy={"max_attempts": 3}, **full)):
        assert await get(api, run) == run


async def test_every_field_of_a_run_is_present(api: httpx.AsyncClient):
    for state in ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"):
        assert set(await in_state(api, state)) == {*KEPT.split(), *OURS.split()}


async def test_a_run_in_a_list_has_the_same_fields_but_no_events(api: httpx.AsyncClient):
    run = await in_state(api, "COMPLETED", image="listed:1")
    (listed,) = told(await api.get("/runs", params={"image": "listed:1"}))["data"]
    assert len(run["events"]) == 2
    assert listed == {**run, "events": []}


async def test_every_field_of_an_attempt_is_present(api: httpx.AsyncClient):
    run = await submit(api, inputs={"x": 1}, constraints={"cpu": 2})
    (attempt,) = await attempts(api, run)
    assert set(attempt) == set(ATTEMPT.split())
    assert set(attempt["execution_summary"]) == set(SUMMARY.split())
    assert (attempt["op_run_id"], attempt["attempt"], attempt["state"]) == (run["id"], 1, "PENDING")
    assert (attempt["inputs"], attempt["constraints"]["cpu"]) == ({"x": 1}, 2)
    assert str(UUID(attempt["id"])) == attempt["id"]


async def test_every_field_of_an_event_is_present(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    (row,) = await history(api, run)
    assert set(row) == {"id", "type", "t", "msg", "state", "payload", "attempt", "at"}
    assert (row["id"], row["type"], row["state"], row["payload"], row["attempt"]) == (0, "STARTED", "RUNNING", None, 1)
    assert set(run["events"][0]) == set(row) - {"state"}


async def test_times_are_utc_with_six_decimals(api: httpx.AsyncClient):
    run = await in_state(api, "COMPLETED")
    (attempt,) = await attempts(api, run)
    times = [run[name] for name in ("created_at", "updated_at", "queue_at")]
    times += [attempt[name] for name in ("started_at", "finished_at", "settled_at")]
    times += [row["t"] for row in await history(api, run)]
    assert [time for time in times if not MOMENT.fullmatch(time)] == []
    assert abs(datetime.fromisoformat(run["created_at"]) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_run_id_is_a_uuid_of_version_seven_that_sorts_by_time(api: httpx.AsyncClient):
    ids = [(await submit(api))["id"] for _ in range(5)]
    assert {UUID(each).version for each in ids} == {7}
    assert [str(UUID(each)) for each in ids] == ids
    assert len(set(ids)) == 5


@pytest.mark.parametrize(
    "spelled",
    [
        str.upper,
        lambda text: text.replace("-", ""),
        lambda text: f"{{{text}}}",
        lambda text: f"urn:uuid:{text}",
        lambda text: f"{text}%20",
        lambda text: text[:-1],
    ],
    ids=["upper case", "no hyphens", "braces", "urn", "blank", "short"],
)
async def test_run_ids_are_matched_exactly(api: httpx.AsyncClient, spelled):
    run = await submit(api)
    refused(await api.get(f"/runs/{spelled(run['id'])}"), 404, "run_not_found")


CALLS = {
    "get": ("GET", "", None),
    "patch": ("PATCH", "", {"priority": 1}),
    "retry": ("POST", "/retry", None),
    "cancel": ("POST", "/cancel", None),
    "events": ("GET", "/events", None),
    "event": ("POST", "/events", {"type": "INFO", "msg": "hi"}),
    "attempts": ("GET", "/attempts", None),
}


@pytest.mark.parametrize("call", CALLS)
async def test_an_unknown_run_is_said_in_the_same_words_by_every_call(api: httpx.AsyncClient, call: str):
    method, path, body = CALLS[call]
    for unknown in (str(uuid4()), "no-such-run", "%00"):
        answer = await api.request(method, f"/runs/{unknown}{path}", json=body)
        shown = "\0" if unknown == "%00" else unknown
        assert refused(answer, 404, "run_not_found")["detail"] == f"OpRun '{shown}' not found"


@pytest.mark.parametrize(
    ("cpu", "shown"), [(1, "1"), (1.0, "1"), (0.5, "0.5"), (2.125, "2.125"), (0.001, "0.001"), (0, "0"), (16.1, "16.1")]
)
async def test_cpu_has_at_most_three_decimals_and_whole_values_none(api: httpx.AsyncClient, cpu: float, shown: str):
    answer = await api.post("/runs", json={"image": "alpine", "constraints": {"cpu": cpu}})
    assert f'"cpu":{shown},' in answer.text
    assert f'"cpu":{shown},' in (await api.get(f"/runs/{answer.json()['id']}")).text


async def test_a_run_shows_its_current_attempt_as_its_own(api: httpx.AsyncClient):
    run = await submit(api, retry_policy={"max_attempts": 2})
    await say(api, run, "STARTED", payload={"worker_id": "box", "gpu_id": 3})
    await say(api, run, "PROGRESS", 40)
    run = told(await say(api, run, "FAILED", payload={"error_message": "out of luck"}))
    assert (run["state"], run["current_attempt"], run["progress"]) == ("PENDING", 2, 0)
    assert run["execution_summary"] == dict.fromkeys(SUMMARY.split())
    assert [row["type"] for row in run["events"]] == ["RETRIED"]
    first, second = await attempts(api, run)
    assert (first["state"], first["progress"], first["reason"]) == ("FAILED", 40, "external")
    assert first["execution_summary"]["worker_id"] == "box"
    assert first["execution_summary"]["gpu_id"] == 3
    assert first["execution_summary"]["error_message"] == "out of luck"
    assert first["execution_summary"]["duration_ms"] >= 0
    assert [row["type"] for row in first["events"]] == ["STARTED", "PROGRESS", "FAILED"]
    assert (second["attempt"], second["state"], second["started_at"]) == (2, "PENDING", None)


async def test_a_run_shows_the_newest_hundred_events_of_its_attempt(api: httpx.AsyncClient):
    run = await submit(api)
    for number in range(103):
        await say(api, run, "INFO", f"note {number}")
    run = await get(api, run)
    assert [row["id"] for row in run["events"]] == list(range(3, 103))
    assert run["events_count"] == 103
    assert [row["id"] for row in await history(api, run)] == list(range(103))


async def test_priority_is_worth_an_hour_a_point(api: httpx.AsyncClient):
    for priority in (-1000, -1, 0, 5, 1000):
        run = await submit(api, priority=priority)
        entered, created = datetime.fromisoformat(run["queue_at"]), datetime.fromisoformat(run["created_at"])
        assert created - entered == timedelta(hours=priority)
