"""POST /runs/cancel and /runs/retry: all that the filters find, once each, and an answer that says how many."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import httpx
import pytest

from gyoza.control import bulk
from gyoza.control.change import Change, change_all
from gyoza.store.database import Connection

from .actors import Json, Worker, attempts, event, get, history, in_state, pointers, refused, say, submit, told

Hire = Callable[..., Worker]
STATES = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
NONE = {"matched": 0, "changed": 0, "has_more": False, "dry_run": False}


async def sweep(api: httpx.AsyncClient, verb: str, **filters: Any) -> Json:
    """The answer of a bulk call: `tag`, `created_gte` and the like are its filters."""
    params = {
        name.replace("created_", "created[") + "]" * name.startswith("created_"): filters[name] for name in filters
    }
    answer = told(await api.post(f"/runs/{verb}", params=params))
    assert set(answer) == set(NONE)
    return answer


def query(filters: Json) -> Json:
    """As they are called in a query: `created_gte` is `created[gte]`."""
    return {re.sub(r"^created_(\w+)$", r"created[\1]", name): value for name, value in filters.items()}


async def states(api: httpx.AsyncClient, runs: Sequence[Json]) -> list[str]:
    return [(await get(api, run))["state"] for run in runs]


async def swept(api: httpx.AsyncClient, verb: str, **filters: Any) -> tuple[int, int]:
    answer = await sweep(api, verb, **filters)
    assert (answer["has_more"], answer["dry_run"]) == (False, False)
    return answer["matched"], answer["changed"]


async def test_cancelling_ends_what_can_be_ended_and_nothing_else(alone: httpx.AsyncClient):
    runs = [await in_state(alone, state, tags=["all"]) for state in STATES]
    apart = await submit(alone, tags=["other"])
    assert await swept(alone, "cancel", tag="all") == (2, 2)
    assert await states(alone, runs) == ["CANCELLED", "CANCELLED", "COMPLETED", "FAILED", "CANCELLED"]
    assert await states(alone, [apart]) == ["PENDING"]
    (ending,) = await history(alone, runs[0])
    assert (ending["type"], ending["msg"]) == ("CANCELLED", "Cancelled by user")
    assert await swept(alone, "cancel", tag="all") == (0, 0)


async def test_retrying_opens_what_failed_or_was_cancelled_and_nothing_else(alone: httpx.AsyncClient):
    runs = [await in_state(alone, state, tags=["all"]) for state in STATES]
    apart = await in_state(alone, "FAILED", tags=["other"])
    assert await swept(alone, "retry", tag="all") == (2, 2)
    assert await states(alone, runs) == ["PENDING", "RUNNING", "COMPLETED", "PENDING", "PENDING"]
    assert await states(alone, [apart]) == ["FAILED"]
    last = (await history(alone, runs[3]))[-1]
    assert (last["type"], last["msg"], last["payload"]) == ("RETRIED", "Manual retry", {"force": True})
    assert [len(await attempts(alone, run)) for run in runs] == [1, 1, 1, 2, 2]


@pytest.fixture
async def crowd(alone: httpx.AsyncClient, worker: Hire) -> dict[str, Json]:
    """Runs of which each filter finds a few; their names say which."""
    told(await alone.post("/definitions", json={"id": "op", "image": "op:1", "tags": ["op"]}), 201)
    of_op = told(await alone.post("/definitions/op/runs", json={"tags": ["a"]}), 201)
    told(await alone.post("/definitions/op/runs", json={"run_at": "2999-01-01T00:00:00Z"}), 201)
    told(await alone.patch(f"/runs/{of_op['id']}", json={"state": "RUNNING"}))
    crowd = {"of_op": of_op, "ab": await submit(alone, "x", tags=["a", "b"], priority=-9)}
    crowd["mine"] = await submit(alone, "y", tags=["b"])
    told(await say(alone, crowd["mine"], "STARTED", payload={"worker_id": "my-box"}))
    crowd["oom"] = await submit(alone, "y", tags=["a"])
    told(await say(alone, crowd["oom"], "STARTED", payload={"worker_id": "my-box"}))
    told(await say(alone, crowd["oom"], "FAILED", payload={"reason": "oom_killed"}))
    crowd["cancelled"] = await in_state(alone, "CANCELLED", image="z", tags=["c"])
    return crowd


BY_FILTER: list[tuple[str, Json, int]] = [
    ("cancel", {"tag": "a"}, 2),
    ("cancel", {"tag": ["a", "b"]}, 1),
    ("cancel", {"tag": ["a", "a"]}, 2),
    ("cancel", {"op_definition": "op"}, 2),
    ("cancel", {"op_definition": "op", "state": "RUNNING"}, 1),
    ("cancel", {"op_definition": "op", "status": "PENDING"}, 1),
    ("cancel", {"image": "y"}, 1),
    ("cancel", {"image": "y", "tag": "a"}, 0),
    ("cancel", {"worker_id": "my-box"}, 1),
    ("cancel", {"submitted_by": "bootstrap"}, 4),
    ("cancel", {"submitted_by": "nobody"}, 0),
    ("cancel", {"state": "PENDING"}, 2),
    ("cancel", {"state": "ASSIGNED"}, 0),
    ("cancel", {"state": "COMPLETED"}, 0),
    ("cancel", {"state": "FAILED"}, 0),
    ("cancel", {"reason": "oom_killed"}, 0),
    ("cancel", {"created_gte": 0}, 4),
    ("cancel", {"created_lt": 5}, 0),
    ("cancel", {"created_gt": 5, "image": "x"}, 1),
    ("retry", {"tag": "a"}, 1),
    ("retry", {"tag": "c"}, 1),
    ("retry", {"tag": "b"}, 0),
    ("retry", {"reason": "oom_killed"}, 1),
    ("retry", {"reason": "cancelled"}, 1),
    ("retry", {"reason": "cancelled", "state": "FAILED"}, 0),
    ("retry", {"worker_id": "my-box"}, 1),
    ("retry", {"worker_id": "my-box", "reason": "oom_killed", "state": "FAILED", "tag": "a", "image": "y"}, 1),
    ("retry", {"state": "FAILED"}, 1),
    ("retry", {"state": "CANCELLED"}, 1),
    ("retry", {"state": "RUNNING"}, 0),
    ("retry", {"created_gte": 0}, 2),
    ("retry", {"op_definition": "op"}, 0),
]


@pytest.mark.parametrize(("verb", "filters", "count"), BY_FILTER, ids=lambda each: str(each))
async def test_exactly_what_the_filters_find_is_changed(
    alone: httpx.AsyncClient, crowd: dict[str, Json], verb: str, filters: Json, count: int
):
    found = {
        run["id"]
        for run in (await listed(alone, filters))
        if run["state"] in (("FAILED", "CANCELLED") if verb == "retry" else ("PENDING", "ASSIGNED", "RUNNING"))
    }
    assert len(found) == count
    before = {run["id"]: run["state"] for run in await listed(alone, {})}
    dry = await sweep(alone, verb, **filters, dry_run=True)
    assert dry == {"matched": count, "changed": 0, "has_more": False, "dry_run": True}
    assert {run["id"]: run["state"] for run in await listed(alone, {})} == before
    assert await swept(alone, verb, **filters) == (count, count)
    after = {run["id"]: run["state"] for run in await listed(alone, {})}
    assert {run_id for run_id in after if after[run_id] != before[run_id]} == found
    assert {after[run_id] for run_id in found} <= {"PENDING" if verb == "retry" else "CANCELLED"}


async def listed(api: httpx.AsyncClient, filters: Json) -> list[Json]:
    return told(await api.get("/runs", params={**query(filters), "limit": 100}))["data"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_without_a_filter_nothing_is_changed(api: httpx.AsyncClient, verb: str):
    for query in ("", "?dry_run=true", "?dry_run=false"):
        detail = refused(await api.post(f"/runs/{verb}{query}"), 400, "invalid_query")["detail"]
        assert "filter" in detail


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("state=PENDING&tga=a", "tga"),
        ("state=PENDING&tag=", "tag"),
        ("tag=a&tag=", "tag"),
        ("image=", "image"),
        ("state=PENDING&limit=5", "limit"),
        ("state=PENDING&starting_after=x", "starting_after"),
        ("state=PENDING&created_gte=5", "created_gte"),
        ("created[gte]=x", "created[gte]"),
        ("state=PENDING&dry_run=perhaps", "dry_run"),
        ("state=PENDING&dry_run=", "dry_run"),
    ],
)
async def test_a_filter_that_is_misspelt_or_empty_does_not_widen_what_is_changed(
    api: httpx.AsyncClient, verb: str, query: str, place: str
):
    run = await submit(api, tags=["a"])
    assert pointers(await api.post(f"/runs/{verb}?{query}")) == {f"/query/{place}"}
    assert (await get(api, run))["state"] == "PENDING"


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_filters_are_checked_as_those_of_the_list(api: httpx.AsyncClient, verb: str):
    asked = {
        "state=BOGUS": "Invalid state 'BOGUS'",
        "reason=bad_luck": "Invalid reason 'bad_luck'",
        "state=FAILED&status=PENDING": "state and status must match when both are provided",
        f"created[gte]={'9' * 20}": "Invalid created timestamp",
    }
    for query, detail in asked.items():
        assert refused(await api.post(f"/runs/{verb}?{query}"), 400, "invalid_query")["detail"] == detail


async def test_workers_are_told_to_stop(alone: httpx.AsyncClient, worker: Hire):
    one = await worker().registered()
    for _ in range(2):
        await submit(alone, tags=["held"])
    assigned = await one.assignment()
    started = await one.assignment(assigned)
    await one.report(started, event("STARTED"))
    waiting = asyncio.create_task(one.claim(assigned, started, most=0, wait_s=20))
    assert await swept(alone, "cancel", tag="held") == (2, 2)
    async with asyncio.timeout(10):
        stops = told(await waiting)["stop"]
        while len(stops) < 2:
            stops = told(await one.claim(assigned, started, most=0, wait_s=1))["stop"]
    assert {(each["run_id"], each["reason"]) for each in stops} == {
        (assigned["run_id"], "cancelled"),
        (started["run_id"], "cancelled"),
    }
    assert (await one.report(started, event("COMPLETED")))["code"] == "lease_lost"


async def test_what_was_retried_is_handed_out_again(alone: httpx.AsyncClient, worker: Hire):
    runs = [await in_state(alone, "FAILED", tags=["again"]) for _ in range(3)]
    one = await worker().registered()
    waiting = asyncio.create_task(one.claim(most=3, wait_s=20))
    assert await swept(alone, "retry", tag="again") == (3, 3)
    held = told(await waiting)["assignments"]
    while len(held) < 3:
        held += told(await one.claim(*held, most=3, wait_s=20))["assignments"]
    assert {(each["run_id"], each["attempt"]) for each in held} == {(run["id"], 2) for run in runs}


@pytest.mark.parametrize("at_once", [1, 3, 10])
async def test_all_are_changed_however_few_at_once(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    monkeypatch.setattr(bulk, "AT_ONCE", at_once)
    tag = f"by-{at_once}"
    runs = [await submit(api, tags=[tag]) for _ in range(10)]
    assert await swept(api, "cancel", tag=tag) == (10, 10)
    assert await swept(api, "retry", tag=tag) == (10, 10)
    assert [row["type"] for row in await history(api, runs[0])] == ["CANCELLED", "RETRIED"]


async def test_a_call_that_takes_too_long_says_that_there_is_more(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bulk, "AT_ONCE", 4)
    monkeypatch.setattr(bulk, "LONGEST_S", 0)
    runs = [await submit(api, tags=["too-long"]) for _ in range(10)]
    answers = [await sweep(api, "cancel", tag="too-long") for _ in range(3)]
    assert answers == [
        {"matched": 4, "changed": 4, "has_more": True, "dry_run": False},
        {"matched": 4, "changed": 4, "has_more": True, "dry_run": False},
        {"matched": 2, "changed": 2, "has_more": False, "dry_run": False},
    ]
    assert set(await states(api, runs)) == {"CANCELLED"}


async def test_no_more_are_looked_at_than_one_call_can_bear(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bulk, "MOST", 3)
    for state in ("PENDING", "PENDING", "PENDING", "PENDING", "RUNNING"):
        await in_state(api, state, tags=["most"])
    dry = await sweep(api, "cancel", tag="most", dry_run=True)
    assert dry == {"matched": 4, "changed": 0, "has_more": True, "dry_run": True}
    assert await sweep(api, "cancel", tag="most") == {"matched": 4, "changed": 4, "has_more": True, "dry_run": False}
    assert await swept(api, "cancel", tag="most") == (1, 1)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Has something happen once, after the runs were found and before the first is changed."""

    def arrange(happens: Callable[[], Any]) -> None:
        left = [happens]

        async def after_that(connection: Connection, changes: Sequence[Change], now: datetime) -> Any:
            if left:
                await left.pop()()
            return await change_all(connection, changes, now)

        monkeypatch.setattr(bulk, "change_all", after_that)

    return arrange


async def test_a_run_that_goes_back_to_the_queue_meanwhile_is_not_missed(
    api: httpx.AsyncClient, meanwhile: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
):
    """It was RUNNING when the runs were found, and waits by the time that those that waited are all cancelled."""
    monkeypatch.setattr(bulk, "AT_ONCE", 1)
    waiting = await submit(api, tags=["back"])
    moving = await in_state(api, "RUNNING", tags=["back"], retry_policy={"max_attempts": 2})
    meanwhile(lambda: say(api, moving, "FAILED"))
    assert await swept(api, "cancel", tag="back") == (2, 2)
    assert await states(api, [waiting, moving]) == ["CANCELLED", "CANCELLED"]
    assert [row["type"] for row in await history(api, moving)] == ["STARTED", "FAILED", "RETRIED", "CANCELLED"]


async def test_a_run_that_ends_meanwhile_counts_as_found_and_not_as_changed(
    api: httpx.AsyncClient, meanwhile: Callable[[Any], None]
):
    ending, other = await in_state(api, "RUNNING", tags=["ends"]), await submit(api, tags=["ends"])
    meanwhile(lambda: say(api, ending, "COMPLETED"))
    assert await swept(api, "cancel", tag="ends") == (2, 1)
    assert await states(api, [ending, other]) == ["COMPLETED", "CANCELLED"]


async def test_a_run_that_fails_again_meanwhile_is_retried_once(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    """Each run fails, or is cancelled, again as soon as it was retried."""
    monkeypatch.setattr(bulk, "AT_ONCE", 1)
    runs = [await in_state(api, state, tags=["fast"]) for state in ("FAILED", "CANCELLED", "FAILED", "CANCELLED")]

    async def failing(connection: Connection, changes: Sequence[Change], now: datetime) -> Any:
        for run in runs:
            await api.post(f"/runs/{run['id']}/cancel")
        return await change_all(connection, changes, now)

    monkeypatch.setattr(bulk, "change_all", failing)
    assert await swept(api, "retry", tag="fast") == (4, 4)
    assert [len(await attempts(api, run)) for run in runs] == [2, 2, 2, 2]


async def test_a_run_that_comes_meanwhile_is_left_alone(api: httpx.AsyncClient, meanwhile: Callable[[Any], None]):
    await submit(api, tags=["new"])
    meanwhile(lambda: submit(api, tags=["new"]))
    assert await swept(api, "cancel", tag="new") == (1, 1)
    assert await swept(api, "cancel", tag="new") == (1, 1)


async def test_sweeps_and_reports_at_once_end_in_one_truth(
    twins: tuple[httpx.AsyncClient, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
):
    """Four sweeps on two servers, while every run is completed or fails by itself."""
    monkeypatch.setattr(bulk, "AT_ONCE", 7)
    api, other = twins
    runs = [await in_state(api, ("PENDING", "RUNNING")[n % 2], tags=["race"]) for n in range(40)]

    async def live(run: Json, n: int) -> None:
        for type in ("STARTED", "COMPLETED" if n % 3 else "FAILED"):
            await say(twins[n % 2], run, type)

    sweeps = [swept(each, "cancel", tag="race") for each in (api, other, api, other)]
    counts = await asyncio.gather(*sweeps, *(live(run, n) for n, run in enumerate(runs)))
    ended = Counter(await states(other, runs))
    assert set(ended) <= {"CANCELLED", "COMPLETED", "FAILED"}
    assert sum(changed for _, changed in counts[:4]) == ended["CANCELLED"]
    for run in runs:
        rows = await history(api, run)
        assert [row["id"] for row in rows] == list(range(len(rows)))
        assert [row["type"] for row in rows if row["type"] in ended] == [(await get(api, run))["state"]]
        assert rows[-1]["type"] == (await get(api, run))["state"]


async def test_retries_at_once_open_one_attempt_each(twins: tuple[httpx.AsyncClient, httpx.AsyncClient]):
    runs = [await in_state(twins[0], "FAILED", tags=["once"]) for _ in range(20)]
    counts = await asyncio.gather(*(swept(twins[n % 2], "retry", tag="once") for n in range(6)))
    assert sum(changed for _, changed in counts) == 20
    assert {len(await attempts(twins[0], run)) for run in runs} == {2}
