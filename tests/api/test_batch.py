"""POST /runs/batch: many runs, all of them or none, each fault named by its place."""

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gyoza.control import submit as submitting
from gyoza.server import submission

from .actors import Json, get, pointers, refused, submit, told
from .test_json import MOST_JSON, ODD, text_of

Sql = Callable[..., list[tuple[Any, ...]]]
OP = {
    "id": "sum",
    "version": "1",
    "image": "sums",
    "input_specs": {"a": {"type": "int"}, "b": {"type": "float", "required": False, "default": 2}},
    "tags": ["sums"],
    "timeouts": {"run_s": 60},
}
ITEM = {"image": "alpine"}


async def batch(api: httpx.AsyncClient, *items: Any, **more: Any) -> httpx.Response:
    return await api.post("/runs/batch", json={"runs": list(items), **more})


async def made(api: httpx.AsyncClient, *items: Any) -> list[Json]:
    """The runs of a batch, as GET shows them, in its order."""
    answer = told(await batch(api, *items), 201)
    assert set(answer) == {"object", "count", "ids"}
    assert (answer["object"], answer["count"]) == ("batch", len(items)) == ("batch", len(answer["ids"]))
    return [await get(api, {"id": run_id}) for run_id in answer["ids"]]


@pytest.fixture
async def deployed(api: httpx.AsyncClient) -> None:
    assert (await api.post("/definitions", json=OP)).is_success
    assert (await api.post("/definitions", json={**OP, "id": "disabled"})).is_success
    told(await api.post("/definitions/disabled/disable"))


async def test_a_batch_makes_what_single_calls_make(api: httpx.AsyncClient, deployed: None):
    options = {
        "priority": -3,
        "tags": ["x", "y"],
        "run_at": "2030-01-01T00:00:00+00:00",
        "timeouts": {"queue_s": 5},
        "retry_policy": {"max_attempts": 3, "backoff_s": 1.5},
        "delete_after_s": 60,
    }
    delivery = {"topic": "t", "attributes": {"b": 1, "a": 2}}
    alone = {"image": "alpine", "inputs": {"n": 1}, "constraints": {"cpu": 0.5}, "event_delivery": delivery}
    items = [ITEM, {**alone, **options}, {"op_definition": "sum", "inputs": {"a": 1}, "version": "1", **options}]
    singles = [
        await submit(api),
        told(await api.post("/runs", json=items[1]), 201),
        told(await api.post("/definitions/sum/runs", json={"inputs": {"a": 1}, "version": "1", **options}), 201),
    ]
    apart = {"id", "created_at", "updated_at", "queue_at"}
    for run, single in zip(await made(api, *items), singles, strict=True):
        assert {name: run[name] for name in run if name not in apart} == {
            name: single[name] for name in single if name not in apart
        }


async def test_items_stand_in_lists_and_in_the_queue_in_their_order(alone: httpx.AsyncClient, sql: Sql):
    ids = told(await batch(alone, *[{**ITEM, "inputs": {"n": n}} for n in range(50)]), 201)["ids"]
    listed = told(await alone.get("/runs", params={"limit": 100}))["data"]
    assert [run["id"] for run in listed] == ids[::-1]
    assert [run["inputs"]["n"] for run in listed] == list(range(50))[::-1]
    assert [row[0] for row in sql("SELECT id::text FROM runs ORDER BY queue_at, id")] == ids


async def test_inputs_are_kept_as_they_were_received(api: httpx.AsyncClient):
    told(await api.post("/definitions", json={"id": "any", "image": "a", "input_specs": {"x": {"type": "any"}}}), 201)
    body = f'{{"runs":[{{"image":"a","inputs":{ODD}}},{{"op_definition":"any","inputs":{{"x":{ODD}}}}}]}}'
    first, second = told(await api.post("/runs/batch", content=body.encode()), 201)["ids"]
    assert f'"inputs":{ODD}' in (await api.get(f"/runs/{first}")).text
    assert f'"inputs":{{"x":{ODD}}}' in (await api.get(f"/runs/{second}")).text


FAULTY: list[tuple[Any, str, str]] = [
    (5, "", "wrong_type"),
    ({}, "", "wrong_value"),
    ({"image": "a", "op_definition": "sum"}, "", "wrong_value"),
    ({"image": "a", "version": "1"}, "", "wrong_value"),
    ({"op_definition": "sum", "constraints": {"cpu": 1}}, "", "wrong_value"),
    ({"op_definition": "sum", "event_delivery": {"topic": "t"}}, "", "wrong_value"),
    ({"image": ""}, "/image", "too_short"),
    ({"image": "a" * 601}, "/image", "too_long"),
    ({"op_definition": 5}, "/op_definition", "wrong_type"),
    ({"image": "a", "inputs": []}, "/inputs", "wrong_type"),
    ({"image": "a", "inputs": None}, "/inputs", "wrong_type"),
    ({"image": "a", "priority": 1001}, "/priority", "out_of_bounds"),
    ({"image": "a", "constraints": {"cpu": 0.0001}}, "/constraints/cpu", "wrong_value"),
    ({"image": "a", "retry_policy": {"jitter": 2}}, "/retry_policy/jitter", "out_of_bounds"),
    ({"image": "a", "tags": ["ok", ""]}, "/tags/1", "too_short"),
    ({"image": "a", "run_at": 5}, "/run_at", "wrong_type"),
    ({"image": "a", "timeouts": {"colour": 1}}, "/timeouts/colour", "unknown_member"),
    ({"image": "a", "colour": "red"}, "/colour", "unknown_member"),
]


@pytest.mark.parametrize(("item", "place", "code"), FAULTY)
async def test_a_misshapen_item_is_named_by_its_place(
    alone: httpx.AsyncClient, sql: Sql, item: Any, place: str, code: str
):
    answer = await batch(alone, ITEM, item, ITEM, item)
    faults = refused(answer, 422, "malformed")["errors"]
    assert [(each["pointer"], each["code"]) for each in faults] == [(f"/runs/{n}{place}", code) for n in (1, 3)]
    assert sql("SELECT count(*) FROM runs") == [(0,)]


async def test_an_item_that_cannot_be_submitted_is_named_by_its_place(api: httpx.AsyncClient, deployed: None):
    before = told(await api.get("/runs", params={"limit": 1}))["data"][:1]
    answer = await batch(
        api,
        {"op_definition": "sum", "inputs": {"a": 1}},
        {"op_definition": "nobody"},
        {"op_definition": "sum", "version": "2", "inputs": {"a": 1}},
        ITEM,
        {"op_definition": "disabled", "inputs": {"a": 1}},
        {"op_definition": "sum", "inputs": {"a": True, "c": 1}},
        {"op_definition": "sum"},
    )
    faults = [(each["pointer"], each["code"]) for each in refused(answer, 422, "malformed")["errors"]]
    assert faults == [
        ("/runs/1", "definition_not_found"),
        ("/runs/2", "definition_not_found"),
        ("/runs/4", "definition_disabled"),
        ("/runs/5/inputs/c", "unknown_member"),
        ("/runs/5/inputs/a", "wrong_type"),
        ("/runs/6/inputs/a", "missing"),
    ]
    said = [each["detail"] for each in answer.json()["errors"]]
    assert "'nobody'" in said[0] and "version '2'" in said[1] and "enable it" in said[2]
    assert "'c'" in said[3] and "'a'" in said[4] and "'a' is required" in said[5]
    assert told(await api.get("/runs", params={"limit": 1}))["data"][:1] == before


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/runs"),
        ({"runs": []}, "/runs"),
        ({"runs": {}}, "/runs"),
        ({"runs": [ITEM], "dry_run": True}, "/dry_run"),
        ([], ""),
    ],
)
async def test_a_misshapen_batch_is_refused(api: httpx.AsyncClient, body: Any, place: str):
    assert pointers(await api.post("/runs/batch", json=body)) == {place}


async def test_what_cannot_be_kept_is_named_by_its_place(api: httpx.AsyncClient):
    body = b'{"runs": [{"image": "a"}, {"image": "a", "inputs": {"x": [1, NaN]}}, {"image": "\\u0000"}]}'
    assert pointers(await api.post("/runs/batch", content=body)) == {"/runs/1/inputs/x/1", "/runs/2/image"}


async def test_every_item_may_have_inputs_of_four_megabytes(alone: httpx.AsyncClient, sql: Sql):
    told(await alone.post("/definitions", json={"id": "big", "image": "a", "input_specs": {"x": {"type": "any"}}}), 201)
    most, over = text_of(MOST_JSON), text_of(MOST_JSON + 1)

    async def asked(*inputs: str) -> httpx.Response:
        whom = ('"image":"a"', '"op_definition":"big"')
        items = [f'{{{whom[n % 2]},"inputs":{each}}}' for n, each in enumerate(inputs)]
        return await alone.post("/runs/batch", content=f'{{"runs":[{",".join(items)}]}}'.encode())

    faults = refused(await asked("{}", over, over), 422)["errors"]
    places = [("/runs/1/inputs", "too_large"), ("/runs/2/inputs", "too_large")]
    assert [(each["pointer"], each["code"]) for each in faults] == places
    assert sql("SELECT count(*) FROM runs") == [(0,)]
    assert told(await asked(most, most, most), 201)["count"] == 3
    refused(await asked(most, most, most, most), 413, "too_large")


async def test_ten_thousand_go_at_once_and_not_one_more(alone: httpx.AsyncClient, sql: Sql):
    told(await alone.post("/definitions", json=OP), 201)
    items = [{"op_definition": "sum", "inputs": {"a": n}, "tags": ["many"]} for n in range(10_000)]
    started = time.monotonic()
    answer = told(await batch(alone, *items), 201)
    print(f"10,000 runs in {time.monotonic() - started:.2f} s")
    assert (answer["count"], len(set(answer["ids"]))) == (10_000, 10_000)
    assert sql("SELECT count(*), count(DISTINCT inputs->>'a') FROM runs") == [(10_000, 10_000)]
    assert sql("SELECT count(*) FROM attempts") == [(10_000,)]
    assert sql("SELECT tag, count(*) FROM run_tags GROUP BY tag ORDER BY tag") == [("many", 10_000), ("sums", 10_000)]
    assert pointers(await batch(alone, *items, ITEM)) == {"/runs"}
    assert sql("SELECT count(*) FROM runs") == [(10_000,)]


async def test_of_ten_thousand_every_fault_is_named(alone: httpx.AsyncClient, sql: Sql):
    faults = refused(await batch(alone, *[{"op_definition": f"op-{n}"} for n in range(10_000)]), 422)["errors"]
    assert [each["pointer"] for each in faults] == [f"/runs/{n}" for n in range(10_000)]


async def test_a_large_batch_holds_nobody_up(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch):
    """Another thread than the one that answers reads its body and draws its runs."""
    threads: list[threading.Thread] = []

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any) -> Any:
            threads.append(threading.current_thread())
            return work(*args)

        return noting

    monkeypatch.setattr(submission, "batch", noted(submission.batch))
    monkeypatch.setattr(submitting, "new_id", noted(submitting.new_id))
    told(await batch(api, ITEM), 201)
    assert len(threads) == 2 and threading.current_thread() not in threads


async def test_the_moment_of_a_batch_is_one(api: httpx.AsyncClient):
    first, second = await made(api, ITEM, {**ITEM, "priority": 6})
    assert first["created_at"] == second["created_at"]
    assert first["queue_at"] > second["queue_at"]
