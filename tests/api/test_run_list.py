"""GET /runs: newest first, in pages, filtered."""

import asyncio
import time
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from .actors import in_state, pointers, refused, submit, told


async def page(alone: httpx.AsyncClient, **query: Any) -> tuple[list[str], bool]:
    """The ids of a page, and whether more lie beyond."""
    answer = told(await alone.get("/runs", params=query))
    assert set(answer) == {"object", "data", "has_more", "url"}
    assert (answer["object"], answer["url"]) == ("list", "/runs")
    return [run["id"] for run in answer["data"]], answer["has_more"]


async def newest_first(alone: httpx.AsyncClient, count: int, **body: Any) -> list[str]:
    """The ids of so many new runs."""
    return [(await submit(alone, **body))["id"] for _ in range(count)][::-1]


async def test_no_runs_are_an_empty_list(alone: httpx.AsyncClient):
    assert await page(alone) == ([], False)


async def test_ten_are_listed_newest_first_unless_more_are_asked_for(alone: httpx.AsyncClient):
    ids = await newest_first(alone, 12)
    assert await page(alone) == (ids[:10], True)
    assert await page(alone, limit=100) == (ids, False)
    assert await page(alone, limit=12) == (ids, False)
    assert await page(alone, limit=11) == (ids[:11], True)
    assert await page(alone, limit=1) == (ids[:1], True)


@pytest.mark.parametrize("limit", ["0", "-1", "101", "ten", "", "1.5", "9" * 30])
async def test_a_limit_out_of_bounds_is_refused(api: httpx.AsyncClient, limit: str):
    assert pointers(await api.get("/runs", params={"limit": limit})) == {"/query/limit"}


async def test_pages_lead_on_to_the_oldest_run(alone: httpx.AsyncClient):
    ids = await newest_first(alone, 6)
    assert await page(alone, limit=2, starting_after=ids[1]) == (ids[2:4], True)
    assert await page(alone, limit=2, starting_after=ids[3]) == (ids[4:6], False)
    assert await page(alone, limit=2, starting_after=ids[2]) == (ids[3:5], True)
    assert await page(alone, limit=2, starting_after=ids[4]) == (ids[5:], False)
    assert await page(alone, limit=2, starting_after=ids[5]) == ([], False)


async def test_pages_lead_back_to_the_newest_run(alone: httpx.AsyncClient):
    ids = await newest_first(alone, 6)
    assert await page(alone, limit=2, ending_before=ids[4]) == (ids[2:4], True)
    assert await page(alone, limit=2, ending_before=ids[2]) == (ids[0:2], False)
    assert await page(alone, limit=2, ending_before=ids[3]) == (ids[1:3], True)
    assert await page(alone, limit=2, ending_before=ids[1]) == (ids[:1], False)
    assert await page(alone, limit=2, ending_before=ids[0]) == ([], False)


async def test_runs_of_the_same_moment_are_neither_skipped_nor_repeated(alone: httpx.AsyncClient):
    await asyncio.gather(*(submit(alone) for _ in range(20)))
    every, _ = await page(alone, limit=100)
    seen: list[str] = []
    more = True
    while more:
        found, more = await page(alone, limit=3, **({"starting_after": seen[-1]} if seen else {}))
        seen += found
    assert seen == every
    assert len(set(seen)) == 20


async def test_a_cursor_need_not_match_the_filters(alone: httpx.AsyncClient):
    older = await newest_first(alone, 2, image="a")
    cursor = (await submit(alone, image="b"))["id"]
    newer = await newest_first(alone, 2, image="a")
    assert await page(alone, image="a", starting_after=cursor) == (older, False)
    assert await page(alone, image="a", ending_before=cursor) == (newer, False)
    assert await page(alone, image="a", ending_before=cursor, limit=1) == (newer[1:], True)


async def test_has_more_counts_only_what_the_filters_let_through(alone: httpx.AsyncClient):
    await newest_first(alone, 2, image="b")
    ids = await newest_first(alone, 2, image="a")
    await newest_first(alone, 2, image="b")
    assert await page(alone, image="a", limit=2) == (ids, False)
    assert await page(alone, image="a", limit=1, ending_before=ids[1]) == (ids[:1], False)


@pytest.mark.parametrize("cursor", ["starting_after", "ending_before"])
async def test_an_unknown_cursor_is_refused(api: httpx.AsyncClient, cursor: str):
    known = await submit(api)
    for unknown in (str(uuid4()), "nonsense", known["id"].upper(), "\0"):
        assert unknown in refused(await api.get("/runs", params={cursor: unknown}), 400)["detail"]


async def test_both_cursors_at_once_are_refused(api: httpx.AsyncClient):
    run = await submit(api)
    refused(await api.get("/runs", params={"starting_after": run["id"], "ending_before": run["id"]}), 400)


async def test_runs_are_found_by_state_and_by_its_alias(alone: httpx.AsyncClient):
    running, failed = await in_state(alone, "RUNNING"), await in_state(alone, "FAILED")
    await submit(alone)
    assert await page(alone, state="RUNNING") == ([running["id"]], False)
    assert await page(alone, status="FAILED") == ([failed["id"]], False)
    assert await page(alone, state="FAILED", status="FAILED") == ([failed["id"]], False)
    assert await page(alone, state="CANCELLED") == ([], False)


async def test_two_different_states_are_refused(api: httpx.AsyncClient):
    answer = await api.get("/runs", params={"state": "RUNNING", "status": "FAILED"})
    assert refused(answer, 400)["detail"] == "state and status must match when both are provided"
    answer = await api.get("/runs", params={"state": "RUNNING", "status": "BOGUS"})
    assert refused(answer, 400)["detail"] == "state and status must match when both are provided"


@pytest.mark.parametrize("name", ["state", "status"])
@pytest.mark.parametrize("value", ["BOGUS", "running", "Pending", " PENDING"])
async def test_an_unknown_state_is_refused(api: httpx.AsyncClient, name: str, value: str):
    assert refused(await api.get("/runs", params={name: value}), 400)["detail"] == f"Invalid state '{value}'"


async def test_runs_are_found_by_image_and_an_empty_value_counts_as_absent(alone: httpx.AsyncClient):
    a, b = (await submit(alone, "a"))["id"], (await submit(alone, "b"))["id"]
    assert await page(alone, image="a") == ([a], False)
    assert await page(alone, image="A") == ([], False)
    assert await page(alone, image="", op_definition="") == ([b, a], False)


async def test_runs_are_found_by_definition(alone: httpx.AsyncClient):
    await submit(alone)
    told(await alone.post("/definitions", json={"id": "blur", "version": "1", "image": "blur:1"}), 201)
    run = told(await alone.post("/definitions/blur/runs", json={}), 201)
    assert await page(alone, op_definition="blur") == ([run["id"]], False)
    assert await page(alone, op_definition="blur", image="blur:1", state="PENDING") == ([run["id"]], False)
    assert await page(alone, op_definition="blu") == ([], False)


@pytest.mark.parametrize("name", ["image", "op_definition"])
async def test_a_filter_that_could_never_be_kept_is_refused(api: httpx.AsyncClient, name: str):
    refused(await api.get("/runs", params={name: "a\0b"}), 422, "malformed")


async def test_runs_are_found_by_when_they_were_created(alone: httpx.AsyncClient):
    run = await submit(alone)
    second = int(datetime.fromisoformat(run["created_at"]).timestamp())
    inside = {"created[gte]": second, "created[gt]": second - 1, "created[lte]": second + 1, "created[lt]": second + 1}
    for name, value in inside.items():
        assert await page(alone, **{name: value}) == ([run["id"]], False)
    assert await page(alone, **inside) == ([run["id"]], False)
    outside = {"created[gte]": second + 1, "created[gt]": second + 1, "created[lte]": second, "created[lt]": second}
    for name, value in outside.items():
        assert await page(alone, **{name: value}) == ([], False)
    assert await page(alone, **{"created[gt]": 0, "created[lt]": int(time.time()) + 60}) == ([run["id"]], False)


@pytest.mark.parametrize("name", ["created[gte]", "created[lte]", "created[gt]", "created[lt]"])
async def test_a_creation_time_that_is_no_whole_number_is_refused(api: httpx.AsyncClient, name: str):
    for value in ("yesterday", "1.5", "", "2024-01-01", "NaN", "1e3"):
        assert pointers(await api.get("/runs", params={name: value})) == {f"/query/{name}"}


@pytest.mark.parametrize("name", ["created[gte]", "created[lte]", "created[gt]", "created[lt]"])
async def test_a_creation_time_beyond_all_calendars_is_refused(api: httpx.AsyncClient, name: str):
    for value in ("99999999999999", "-99999999999999", "9" * 40, str(2**63), "253402300800"):
        assert refused(await api.get("/runs", params={name: value}), 400)["detail"] == "Invalid created timestamp"


async def test_a_creation_time_within_the_calendar_is_taken(api: httpx.AsyncClient):
    run = await submit(api, "calendar")
    for value in ("-1", "-62135596800"):
        assert await page(api, image="calendar", **{"created[gte]": value}) == ([run["id"]], False)
        assert await page(api, image="calendar", **{"created[lte]": value}) == ([], False)
    assert await page(api, image="calendar", **{"created[lte]": "253402300799"}) == ([run["id"]], False)
