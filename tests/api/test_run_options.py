"""The options of a run: what is taken, what is refused by its place, and what a definition hands down."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
import pytest

from .actors import Json, Worker, get, history, in_state, pointers, refused, say, submit, told, until
from .test_run_shape import POLICY

Hire = Callable[..., Worker]
YEARS = 10 * 365 * 86400

FAULTY: list[tuple[Json, str]] = [
    ({"tags": "a"}, "/tags"),
    ({"tags": None}, "/tags"),
    ({"tags": {}}, "/tags"),
    ({"tags": [""]}, "/tags/0"),
    ({"tags": ["a", 5]}, "/tags/1"),
    ({"tags": ["a", None]}, "/tags/1"),
    ({"tags": ["a" * 201]}, "/tags/0"),
    ({"tags": [str(n) for n in range(51)]}, "/tags"),
    ({"run_at": "2030-01-01T00:00:00"}, "/run_at"),
    ({"run_at": "2030-01-01"}, "/run_at"),
    ({"run_at": "tomorrow"}, "/run_at"),
    ({"run_at": ""}, "/run_at"),
    ({"run_at": 1900000000}, "/run_at"),
    ({"run_at": 1.5}, "/run_at"),
    ({"run_at": True}, "/run_at"),
    ({"run_at": "1900000000"}, "/run_at"),
    ({"run_at": "2030-13-01T00:00:00Z"}, "/run_at"),
    ({"run_at": "2030-02-30T00:00:00Z"}, "/run_at"),
    ({"run_at": "2030-01-01T25:00:00Z"}, "/run_at"),
    ({"run_at": "2030-01-01T00:00:00+99:00"}, "/run_at"),
    ({"run_at": "10000-01-01T00:00:00Z"}, "/run_at"),
    ({"run_at": "9999-12-31T23:59:59Z"}, "/run_at"),
    ({"run_at": "9999-12-31T23:59:59-14:00"}, "/run_at"),
    ({"run_at": "0001-01-01T00:00:00+14:00"}, "/run_at"),
    ({"run_at": "3000-01-01T00:00:00Z"}, "/run_at"),
    ({"timeouts": []}, "/timeouts"),
    *[
        ({"timeouts": {name: value}}, f"/timeouts/{name}")
        for name in ("queue_s", "start_s", "run_s")
        for value in (0, -1, "5", True, YEARS + 1, [])
    ],
    ({"timeouts": {"stop_s": 5}}, "/timeouts/stop_s"),
    ({"retry_policy": 3}, "/retry_policy"),
    *[
        ({"retry_policy": {name: value}}, f"/retry_policy/{name}")
        for name, values in {
            "max_attempts": (0, -1, 1001, 2.5, "2", True, None),
            "backoff_s": (-1, 30 * 86400 + 1, "1", True, None),
            "backoff_factor": (0, 0.99, -1, 100.1, "2", None),
            "max_backoff_s": (-1, 30 * 86400 + 1, "1", False),
            "jitter": (-0.01, 1.01, "0.5", True, None),
            "retry_on": ("op_error", {}, 5),
            "fail_on": ("op_error", None, 5),
        }.items()
        for value in values
    ],
    *[
        ({"retry_policy": {name: ["op_error", reason]}}, f"/retry_policy/{name}/1")
        for name, reasons in {
            "retry_on": ("worker_lost", "disk_full", "start_failed", "cancelled", "bad_luck", 5, None),
            "fail_on": (
                "released",
                "declined",
                "drained",
                "queue_timeout",
                "expired",
                "cancelled",
                "bad_luck",
                5,
                None,
            ),
        }.items()
        for reason in reasons
    ],
    ({"delete_after_s": -1}, "/delete_after_s"),
    ({"delete_after_s": YEARS + 1}, "/delete_after_s"),
    ({"delete_after_s": "60"}, "/delete_after_s"),
    ({"delete_after_s": True}, "/delete_after_s"),
]


@pytest.mark.parametrize(("options", "place"), FAULTY, ids=lambda each: str(each)[:80])
async def test_a_misshapen_option_is_named_by_its_place_wherever_it_stands(
    api: httpx.AsyncClient, options: Json, place: str
):
    run = await submit(api)
    assert pointers(await api.post("/runs", json={"image": "a", **options})) == {place}
    assert pointers(await api.post("/definitions/nobody/runs", json=options)) == {place}
    assert pointers(await api.post(f"/runs/{run['id']}/replay", json=options)) == {place}
    assert pointers(await api.post("/runs/batch", json={"runs": [{"image": "a", **options}]})) == {f"/runs/0{place}"}
    if "run_at" not in options and options != {"tags": None}:
        assert pointers(await api.post("/definitions", json={"id": "x", "image": "a", **options})) == {place}


FITTING: list[tuple[Json, Json]] = [
    ({"tags": []}, {"tags": []}),
    ({"tags": ["b", "a", "b"]}, {"tags": ["b", "a"]}),
    ({"tags": ["😀" * 200]}, {"tags": ["😀" * 200]}),
    ({"tags": [f"{n}" for n in range(50)]}, {"tags": [f"{n}" for n in range(50)]}),
    ({"run_at": None}, {"run_at": None}),
    ({"run_at": "2030-06-01T12:00:00Z"}, {"run_at": "2030-06-01T12:00:00.000000+00:00"}),
    ({"run_at": "2030-06-01T12:00:00.1234567+05:30"}, {"run_at": "2030-06-01T06:30:00.123456+00:00"}),
    ({"run_at": "0001-01-01T00:00:00Z"}, {"run_at": "0001-01-01T00:00:00.000000+00:00"}),
    ({"run_at": "2999-12-31T23:59:59Z"}, {"run_at": "2999-12-31T23:59:59.000000+00:00"}),
    (
        {"run_at": "2999-12-31T23:59:59Z", "priority": -1000, "timeouts": {"queue_s": YEARS}},
        {"run_at": "2999-12-31T23:59:59.000000+00:00"},
    ),
    ({"timeouts": None}, {"timeouts": {"queue_s": None, "start_s": None, "run_s": None}}),
    ({"timeouts": {"run_s": 0.001}}, {"timeouts": {"queue_s": None, "start_s": None, "run_s": 0.001}}),
    (
        {"timeouts": {"queue_s": YEARS, "start_s": YEARS, "run_s": YEARS}},
        {"timeouts": {"queue_s": YEARS, "start_s": YEARS, "run_s": YEARS}},
    ),
    ({"retry_policy": None}, {"retry_policy": POLICY}),
    ({"retry_policy": {"max_attempts": 1000}}, {"retry_policy": {**POLICY, "max_attempts": 1000}}),
    (
        {"retry_policy": {"backoff_s": 30 * 86400, "backoff_factor": 100, "max_backoff_s": 30 * 86400, "jitter": 1}},
        {
            "retry_policy": {
                **POLICY,
                "backoff_s": 30 * 86400,
                "backoff_factor": 100,
                "max_backoff_s": 30 * 86400,
                "jitter": 1,
            }
        },
    ),
    (
        {"retry_policy": {"retry_on": [], "fail_on": ["worker_lost", "op_error"]}},
        {"retry_policy": {**POLICY, "retry_on": [], "fail_on": ["worker_lost", "op_error"]}},
    ),
    ({"delete_after_s": 0}, {"delete_after_s": 0}),
    ({"delete_after_s": YEARS}, {"delete_after_s": YEARS}),
    ({"delete_after_s": None}, {"delete_after_s": None}),
]


@pytest.mark.parametrize(("options", "shown"), FITTING, ids=lambda each: str(each)[:80])
async def test_an_option_within_its_bounds_is_kept_and_shown(api: httpx.AsyncClient, options: Json, shown: Json):
    run = await submit(api, **options)
    assert {name: run[name] for name in shown} == shown
    assert await get(api, run) == run
    told(await say(api, run, "STARTED"))
    told(await say(api, run, "FAILED"))


async def test_a_run_that_is_to_wait_enters_the_queue_when_its_time_comes(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    later = await submit(alone, run_at="2999-01-01T00:00:00Z", priority=2)
    assert datetime.fromisoformat(later["run_at"]) - datetime.fromisoformat(later["queue_at"]) == timedelta(hours=2)
    past = await submit(alone, run_at="2020-01-01T00:00:00Z", priority=0)
    assert past["queue_at"] == past["created_at"]
    assert (await one.assignment())["run_id"] == past["id"]
    soon = datetime.fromisoformat(past["created_at"]) + timedelta(seconds=2)
    waiting = await submit(alone, run_at=soon.isoformat())
    assigned = await until(lambda: assigned_at(alone, waiting))
    assert assigned >= soon
    assert (await get(alone, later))["state"] == "PENDING"


async def assigned_at(api: httpx.AsyncClient, run: Json) -> datetime | None:
    return next((datetime.fromisoformat(row["t"]) for row in await history(api, run)), None)


async def test_a_retry_by_hand_waits_for_nothing(api: httpx.AsyncClient):
    run = await submit(api, run_at="2999-01-01T00:00:00Z")
    told(await api.post(f"/runs/{run['id']}/cancel"))
    run = told(await api.post(f"/runs/{run['id']}/retry"))
    assert run["run_at"] is None


async def test_a_program_of_its_own_need_not_wait(api: httpx.AsyncClient):
    run = await submit(api, run_at="2999-01-01T00:00:00Z")
    assert told(await say(api, run, "STARTED"))["state"] == "RUNNING"


HANDED: Json = {
    "tags": ["op", "both"],
    "timeouts": {"queue_s": 100, "run_s": 60},
    "retry_policy": {"max_attempts": 3, "backoff_s": 2, "fail_on": ["worker_lost"]},
    "delete_after_s": 3600,
}


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ({}, {}),
        ({"tags": ["own", "both"]}, {"tags": ["op", "both", "own"]}),
        ({"timeouts": {"run_s": 5}}, {"timeouts": {"queue_s": 100, "start_s": None, "run_s": 5}}),
        ({"timeouts": {"run_s": None}}, {"timeouts": {"queue_s": 100, "start_s": None, "run_s": None}}),
        ({"timeouts": None}, {}),
        (
            {"retry_policy": {"max_attempts": 1}},
            {"retry_policy": {**POLICY, "max_attempts": 1, "backoff_s": 2, "fail_on": ["worker_lost"]}},
        ),
        (
            {"retry_policy": {"fail_on": [], "jitter": 0.5}},
            {"retry_policy": {**POLICY, "max_attempts": 3, "backoff_s": 2, "jitter": 0.5}},
        ),
        ({"retry_policy": None}, {}),
        ({"delete_after_s": 0}, {"delete_after_s": 0}),
        ({"delete_after_s": None}, {}),
        ({"priority": -5, "run_at": "2030-01-01T00:00:00Z"}, {"priority": -5}),
    ],
)
async def test_a_definition_hands_its_options_down_member_by_member(api: httpx.AsyncClient, said: Json, then: Json):
    assert (await api.post("/definitions", json={"id": "handing", "image": "a", **HANDED})).is_success
    inherited = {
        "tags": ["op", "both"],
        "timeouts": {"queue_s": 100, "start_s": None, "run_s": 60},
        "retry_policy": {**POLICY, **HANDED["retry_policy"]},
        "delete_after_s": 3600,
        "priority": 5,
    }
    run = told(await api.post("/definitions/handing/runs", json=said), 201)
    assert {name: run[name] for name in inherited} == {**inherited, **then}
    (batched,) = told(await api.post("/runs/batch", json={"runs": [{"op_definition": "handing", **said}]}), 201)["ids"]
    batched = await get(api, {"id": batched})
    assert {name: batched[name] for name in inherited} == {**inherited, **then}


@pytest.mark.parametrize("letters", ["ascii", "astral"])
async def test_texts_of_the_greatest_length_are_kept_and_found(api: httpx.AsyncClient, letters: str):
    """Random letters, since an index would compress a text of one; a character may have four bytes."""
    first = 97 if letters == "ascii" else 0x1F300

    def text(length: int) -> str:
        return "".join(chr(first + random.randrange(26)) for _ in range(length))

    name, version, image, tag = text(200), text(400), text(600), text(200)
    for _ in range(2):
        body = {"id": name, "version": version, "image": image, "tags": [tag]}
        assert (await api.post("/definitions", json=body)).is_success
    run = told(await api.post(f"/definitions/{name}/runs", json={"version": version}), 201)
    for filters in ({"op_definition": name, "state": "PENDING"}, {"image": image}, {"tag": tag}):
        assert [each["id"] for each in told(await api.get("/runs", params=filters))["data"]] == [run["id"]]
    assert told(await api.get(f"/definitions/{name}", params={"version": version}))["version"] == version
    assert [each["version"] for each in told(await api.get("/definitions")) if each["id"] == name] == [version]
    for member, place in (
        ({"id": text(201)}, "/id"),
        ({"version": text(401)}, "/version"),
        ({"image": text(601)}, "/image"),
    ):
        assert pointers(await api.post("/definitions", json={**body, **member})) == {place}
    assert pointers(await api.post("/runs", json={"image": text(601)})) == {"/image"}
    told(await api.post("/runs", json={"image": text(600), "tags": [text(200) for _ in range(50)]}), 201)


async def test_a_version_of_any_length_is_not_found_rather_than_a_fault(api: httpx.AsyncClient):
    told(await api.post("/definitions", json={"id": "short", "image": "a"}), 201)
    refused(await api.post("/definitions/short/runs", json={"version": "😀" * 5000}), 404, "definition_not_found")


async def test_a_run_is_pinned_and_let_go(api: httpx.AsyncClient):
    run = await in_state(api, "COMPLETED", tags=["pinned"])
    assert run["pinned"] is False
    for pinned in (True, True, False):
        changed = told(await api.patch(f"/runs/{run['id']}", json={"pinned": pinned}))
        assert (changed["pinned"], changed["state"], changed["events_count"]) == (pinned, "COMPLETED", 2)
    for wrong in ("yes", 1, []):
        assert pointers(await api.patch(f"/runs/{run['id']}", json={"pinned": wrong})) == {"/pinned"}
