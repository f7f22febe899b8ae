"""What GET /runs can be narrowed by, and that its pages lose nothing under any of it."""

import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gyoza.models.reasons import Reason

from .actors import Json, Worker, a_key, by, event, get, in_state, refused, say, submit, told

Hire = Callable[..., Worker]


async def found(api: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = told(await api.get("/runs", params={"limit": 100, **query}))
    assert answer["has_more"] is False
    return [run["id"] for run in answer["data"]]


async def test_of_several_tags_all_must_be_there(alone: httpx.AsyncClient):
    tags = [["a"], ["a", "b"], ["b"], ["a", "b", "c"], []]
    ids = [(await submit(alone, tags=each))["id"] for each in tags]
    assert await found(alone, tag="a") == [ids[3], ids[1], ids[0]]
    assert await found(alone, tag=["a", "b"]) == [ids[3], ids[1]]
    assert await found(alone, tag=["b", "a"]) == [ids[3], ids[1]]
    assert await found(alone, tag=["a", "b", "c"]) == [ids[3]]
    assert await found(alone, tag=["a", "a", "", "a"]) == [ids[3], ids[1], ids[0]]
    assert await found(alone, tag=["a", "nothing"]) == await found(alone, tag="A") == []
    assert await found(alone, tag=["", ""]) == await found(alone, tag="") == ids[::-1]


@pytest.mark.parametrize("tag", ["a b", "ä/ö", "100%", "a,b", "x=y&z", "😀" * 200, "'--"])
async def test_a_tag_is_any_text(alone: httpx.AsyncClient, tag: str):
    run = await submit(alone, tags=[tag])
    assert run["tags"] == [tag]
    assert await found(alone, tag=tag) == [run["id"]]


async def test_tags_of_a_definition_are_found_as_well(api: httpx.AsyncClient):
    told(await api.post("/definitions", json={"id": "tagged", "image": "a", "tags": ["from-op"]}), 201)
    run = told(await api.post("/definitions/tagged/runs", json={"tags": ["own", "from-op"]}), 201)
    assert run["tags"] == ["from-op", "own"]
    assert await found(api, tag=["own", "from-op"]) == [run["id"]]


async def test_runs_are_found_by_why_their_current_attempt_ended(alone: httpx.AsyncClient):
    external, cancelled = await in_state(alone, "FAILED"), await in_state(alone, "CANCELLED")
    oom = await in_state(alone, "RUNNING")
    told(await say(alone, oom, "FAILED", payload={"reason": "oom_killed"}))
    await in_state(alone, "COMPLETED")
    assert await found(alone, reason="external") == [external["id"]]
    assert await found(alone, reason="cancelled") == [cancelled["id"]]
    assert await found(alone, reason="oom_killed", state="FAILED") == [oom["id"]]
    assert await found(alone, reason="oom_killed", state="CANCELLED") == []
    told(await alone.post(f"/runs/{oom['id']}/retry"))
    assert await found(alone, reason="oom_killed") == []


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_may_be_asked_for(api: httpx.AsyncClient, reason: Reason):
    told(await api.get("/runs", params={"reason": reason.value}))


@pytest.mark.parametrize("reason", ["bad_luck", "OP_ERROR", " op_error"])
async def test_an_unknown_reason_is_refused(api: httpx.AsyncClient, reason: str):
    answer = await api.get("/runs", params={"reason": reason})
    assert refused(answer, 400, "invalid_query")["detail"] == f"Invalid reason '{reason}'"


async def test_runs_are_found_by_the_worker_that_has_or_had_them(alone: httpx.AsyncClient, worker: Hire):
    one = await worker("w1").registered()
    run, outside = await submit(alone), await in_state(alone, "PENDING", constraints={"cpu": 1000})
    held = await one.assignment()
    assert await found(alone, worker_id="w1") == [run["id"]]
    await one.report(held, event("STARTED"), event("COMPLETED"), settled=True)
    told(await say(alone, outside, "STARTED", payload={"worker_id": "my laptop"}))
    assert await found(alone, worker_id="w1", state="COMPLETED") == [run["id"]]
    assert await found(alone, worker_id="my laptop") == [outside["id"]]
    assert await found(alone, worker_id="W1") == []


async def test_a_worker_that_lost_an_attempt_is_not_the_run_s_any_more(alone: httpx.AsyncClient, worker: Hire):
    one = await worker("w1").registered()
    run = await submit(alone, retry_policy={"max_attempts": 2, "backoff_s": 3600})
    await one.report(await one.assignment(), event("STARTED"), event("FAILED"), settled=True)
    assert (await get(alone, run))["current_attempt"] == 2
    assert await found(alone, worker_id="w1") == []


@pytest.mark.parametrize("length", [600, 601, 700, 60_000])
@pytest.mark.parametrize("letter", ["a", "😀"])
async def test_a_worker_s_name_of_any_length_is_kept_and_one_beyond_600_is_not_found_by(
    api: httpx.AsyncClient, length: int, letter: str
):
    """Random letters, since an index would compress a name of one."""
    first = ord(letter)
    name = "".join(chr(first + random.randrange(26)) for _ in range(length))[: 65_000 // len(letter.encode())]
    run = await submit(api)
    told(await say(api, run, "STARTED", payload={"worker_id": name}))
    run = told(await say(api, run, "COMPLETED"))
    assert (run["state"], run["execution_summary"]["worker_id"]) == ("COMPLETED", name)
    if length <= 600:
        assert await found(api, worker_id=name) == [run["id"]]
    else:
        assert run["id"] not in await found(api, worker_id=name[:600])


async def test_runs_are_found_by_who_asked_for_them(alone: httpx.AsyncClient):
    one, other = await a_key(alone, "one"), await a_key(alone, "other")
    runs = [told(await alone.post("/runs", json={"image": "a"}, headers=by(key)), 201) for key in (one, other, one)]
    await submit(alone)
    assert await found(alone, submitted_by="one") == [runs[2]["id"], runs[0]["id"]]
    assert await found(alone, submitted_by="other") == [runs[1]["id"]]
    assert await found(alone, submitted_by="nobody") == []


async def test_an_empty_value_counts_as_absent(alone: httpx.AsyncClient):
    run = await submit(alone, tags=["a"])
    empty = dict.fromkeys(("tag", "reason", "worker_id", "submitted_by", "state", "status", "image"), "")
    assert await found(alone, **empty) == [run["id"]]
    for name in empty:
        assert await found(alone, **{name: ""}) == [run["id"]]


@pytest.mark.parametrize("name", ["tag", "reason", "worker_id", "submitted_by"])
async def test_a_value_that_could_never_be_kept_is_refused(api: httpx.AsyncClient, name: str):
    refused(await api.get("/runs", params={name: "a\0b"}), 422, "malformed")


@pytest.mark.parametrize("name", ["tag", "worker_id", "submitted_by", "image", "op_definition"])
async def test_a_value_of_any_length_finds_nothing(api: httpx.AsyncClient, name: str):
    assert await found(api, **{name: "😀" * 5000}) == []


@pytest.fixture
async def many(alone: httpx.AsyncClient) -> list[Json]:
    """Runs of all sorts, oldest first; many of them of the same moment."""
    told(await alone.post("/definitions", json={"id": "op", "image": "a", "tags": ["op"]}), 201)
    items = [
        {"tags": [["odd", "even"][n % 2], f"third-{n % 3}"], **({"op_definition": "op"} if n % 4 else {"image": "b"})}
        for n in range(24)
    ]
    ids = [
        run_id
        for some in (items[:9], items[9:10], items[10:])
        for run_id in told(await alone.post("/runs/batch", json={"runs": some}), 201)["ids"]
    ]
    for n, run_id in enumerate(ids):
        for type, payload in [("STARTED", {"worker_id": f"box-{n % 3}"}), ("FAILED", {"reason": "op_error"})][: n % 3]:
            told(await say(alone, {"id": run_id}, type, payload=payload))
    return [await get(alone, {"id": run_id}) for run_id in ids]


NARROWED: dict[str, tuple[Json, Callable[[Json], bool]]] = {
    "none": ({}, lambda run: True),
    "a tag": ({"tag": "odd"}, lambda run: "odd" in run["tags"]),
    "two tags": ({"tag": ["odd", "third-1"]}, lambda run: {"odd", "third-1"} <= set(run["tags"])),
    "a reason": ({"reason": "op_error"}, lambda run: run["reason"] == "op_error"),
    "a worker": ({"worker_id": "box-2"}, lambda run: run["execution_summary"]["worker_id"] == "box-2"),
    "who asked": ({"submitted_by": "bootstrap"}, lambda run: True),
    "a state": ({"state": "RUNNING"}, lambda run: run["state"] == "RUNNING"),
    "a definition": ({"op_definition": "op"}, lambda run: run["op_definition"] == "op"),
    "an image": ({"image": "b"}, lambda run: run["image"] == "b"),
    "a time": ({"created[gte]": 5}, lambda run: True),
    "a tag and a state": (
        {"tag": "even", "state": "FAILED"},
        lambda run: "even" in run["tags"] and run["state"] == "FAILED",
    ),
    "everything": (
        {
            "tag": ["even", "op"],
            "reason": "op_error",
            "worker_id": "box-2",
            "submitted_by": "bootstrap",
            "state": "FAILED",
            "op_definition": "op",
            "image": "a",
            "created[gt]": 5,
            "created[lt]": 2**33,
        },
        lambda run: "even" in run["tags"] and run["state"] == "FAILED" and run["op_definition"] == "op",
    ),
    "what is not there": ({"tag": "odd", "reason": "disk_full"}, lambda run: False),
}


@pytest.mark.parametrize("narrowed", NARROWED)
async def test_pages_lead_both_ways_over_every_run_once(alone: httpx.AsyncClient, many: list[Json], narrowed: str):
    query, fits = NARROWED[narrowed]
    expected = [run["id"] for run in many if fits(run)][::-1]
    assert expected or narrowed == "what is not there"
    assert await found(alone, **query) == expected
    for limit in (1, 2, 7, len(expected) or 1):
        assert await walked(alone, query, limit, "starting_after") == expected
        if expected:
            back = await walked(alone, query, limit, "ending_before", since=expected[-1])
            assert [*back, expected[-1]] == expected


async def walked(api: httpx.AsyncClient, query: Json, limit: int, way: str, since: str | None = None) -> list[str]:
    """What all pages of this size hold together, newest first."""
    pages: list[list[str]] = []
    more = True
    while more:
        cursor = {} if since is None else {way: since}
        answer = told(await api.get("/runs", params={**query, **cursor, "limit": limit}))
        page, more = [run["id"] for run in answer["data"]], answer["has_more"]
        assert len(page) == limit or not more
        pages.append(page)
        since = (page[-1] if way == "starting_after" else page[0]) if page else since
    return [run_id for page in (pages if way == "starting_after" else pages[::-1]) for run_id in page]


@pytest.mark.parametrize("narrowed", NARROWED)
async def test_a_cursor_need_not_match_the_filters(alone: httpx.AsyncClient, many: list[Json], narrowed: str):
    query, fits = NARROWED[narrowed]
    for n, cursor in enumerate(many):
        older = [run["id"] for run in many[:n] if fits(run)][::-1]
        newer = [run["id"] for run in many[n + 1 :] if fits(run)][::-1]
        assert await found(alone, **query, starting_after=cursor["id"]) == older
        assert await found(alone, **query, ending_before=cursor["id"]) == newer
