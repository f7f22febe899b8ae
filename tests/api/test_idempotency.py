"""Idempotency-Key: asking twice is asking once, whatever breaks in between."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from .actors import Json, a_key, by, pointers, refused, submit, told, until
from .openapi import Document

Sql = Callable[..., list[tuple[Any, ...]]]
OP = {"id": "op", "image": "alpine", "input_specs": {"x": {"type": "int"}}}
CREATING = {
    "POST /runs": {"json": {"image": "alpine", "inputs": {"x": 1}}},
    "POST /definitions/{name}/runs": {"json": {"inputs": {"x": 1}}},
    "POST /runs/batch": {"json": {"runs": [{"image": "a"}, {"op_definition": "op", "inputs": {"x": 1}}]}},
    "POST /runs/{run_id}/replay": {"json": {"tags": ["again"]}},
    "POST /definitions": {"json": {"id": "new", "image": "alpine"}},
    "POST /files": {"content": b"hello"},
}
OTHERWISE = {
    "POST /runs": {"json": {"image": "alpine", "inputs": {"x": 2}}},
    "POST /definitions/{name}/runs": {"json": {"inputs": {"x": 2}}},
    "POST /runs/batch": {"json": {"runs": [{"image": "b"}]}},
    "POST /runs/{run_id}/replay": {"json": {"tags": ["other"]}},
    "POST /definitions": {"json": {"id": "new", "image": "busybox"}},
    "POST /files": {"content": b"world"},
}
SECRETS = {"POST /keys"}
"""Whose answers are not kept."""


async def prepared(api: httpx.AsyncClient) -> dict[str, str]:
    """The paths of the creating calls, where there is what they need."""
    told(await api.post("/definitions", json=OP), 201)
    run = await submit(api)
    return {call: call.removeprefix("POST ").format(name="op", run_id=run["id"]) for call in CREATING}


async def post(api: httpx.AsyncClient, path: str, key: str, **how: Any) -> httpx.Response:
    return await api.post(path, headers={"Idempotency-Key": key}, **how)


async def run_it(api: httpx.AsyncClient, key: str, **body: Any) -> httpx.Response:
    return await post(api, "/runs", key, json={"image": "alpine", **body})


def is_replayed(answer: httpx.Response) -> bool:
    return answer.headers.get("Idempotency-Replayed") == "true"


def made(sql: Sql) -> Counter[str]:
    return Counter({table: sql(f"SELECT count(*) FROM {table}")[0][0] for table in ("runs", "revisions", "files")})


async def test_these_are_the_calls_that_create(api: httpx.AsyncClient):
    document = Document(told(await api.get("/openapi.json")))
    creating = {f"{method} {path}" for method, path in document.calls if "201" in document.statuses(method, path)}
    assert creating - SECRETS == set(CREATING)


@pytest.mark.parametrize("call", CREATING)
async def test_the_same_request_again_gets_the_same_answer_and_makes_nothing(
    alone: httpx.AsyncClient, sql: Sql, call: str
):
    path = (await prepared(alone))[call]
    first = await post(alone, path, "a-key", **CREATING[call])
    assert first.status_code == 201 and not is_replayed(first)
    before = made(sql)
    for _ in range(2):
        again = await post(alone, path, "a-key", **CREATING[call])
        assert (again.status_code, again.content, is_replayed(again)) == (201, first.content, True)
        assert again.headers["content-type"] == first.headers["content-type"]
    assert made(sql) == before
    other = await post(alone, path, "another-key", **CREATING[call])
    assert other.is_success and not is_replayed(other)


@pytest.mark.parametrize("call", CREATING)
async def test_another_body_under_the_same_key_is_refused(alone: httpx.AsyncClient, sql: Sql, call: str):
    path = (await prepared(alone))[call]
    first = await post(alone, path, "a-key", **CREATING[call])
    before = made(sql)
    assert (
        "'a-key'"
        in refused(await post(alone, path, "a-key", **OTHERWISE[call]), 409, "idempotency_key_reused")["detail"]
    )
    assert made(sql) == before
    assert (await post(alone, path, "a-key", **CREATING[call])).content == first.content


async def test_another_path_query_or_media_type_under_the_same_key_is_refused(alone: httpx.AsyncClient, sql: Sql):
    await prepared(alone)
    told(await alone.post("/definitions", json={**OP, "id": "op2"}), 201)
    body: Json = {"json": {"inputs": {"x": 1}}}
    told(await post(alone, "/definitions/op/runs", "path", **body), 201)
    refused(await post(alone, "/definitions/op2/runs", "path", **body), 409, "idempotency_key_reused")
    told(await post(alone, "/files?name=a", "query", content=b"hello"), 201)
    refused(await post(alone, "/files?name=b", "query", content=b"hello"), 409, "idempotency_key_reused")
    typed = {"Idempotency-Key": "query", "Content-Type": "text/plain"}
    refused(await alone.post("/files?name=a", headers=typed, content=b"hello"), 409, "idempotency_key_reused")


@pytest.mark.parametrize("call", CREATING)
async def test_16_at_once_make_one_on_whichever_server(
    twins: tuple[httpx.AsyncClient, httpx.AsyncClient], sql: Sql, call: str
):
    path = (await prepared(twins[0]))[call]
    before = made(sql)
    answers = await asyncio.gather(*(post(twins[n % 2], path, "a-key", **CREATING[call]) for n in range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(map(is_replayed, answers)) == {False: 1, True: 15}
    items = len(answers[0].json().get("ids", ["one"]))
    assert sum((made(sql) - before).values()) == items


async def test_16_different_requests_at_once_under_one_key_make_one(api: httpx.AsyncClient):
    answers = await asyncio.gather(*(run_it(api, "one-of-16", inputs={"n": n}) for n in range(16)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 15}


async def test_a_refusal_is_not_kept(api: httpx.AsyncClient):
    path, of_op = "/definitions/refusing/runs", {"json": {"inputs": {"x": "1"}}}
    batch = {"json": {"runs": [{"op_definition": "refusing", "inputs": {"x": "1"}}]}}
    refused(await post(api, path, "refused", **of_op), 404)
    refused(await post(api, "/runs/batch", "refused-batch", **batch), 422)
    told(await api.post("/definitions", json={**OP, "id": "refusing"}), 201)
    refused(await post(api, path, "refused", **of_op), 400)
    refused(await post(api, "/runs/batch", "refused-batch", **batch), 422)
    told(await api.post("/definitions/refusing/disable"))
    refused(await post(api, path, "refused", **of_op), 409, "definition_disabled")
    told(await api.post("/definitions/refusing/enable"))
    told(await api.post("/definitions", json={**OP, "id": "refusing", "input_specs": {"x": {"type": "any"}}}), 201)
    for _ in range(2):
        told(await post(api, path, "refused", **of_op), 201)
        told(await post(api, "/runs/batch", "refused-batch", **batch), 201)


async def test_what_was_misshapen_may_be_corrected_under_its_key(api: httpx.AsyncClient):
    refused(await run_it(api, "corrected", priority="high"), 422)
    assert not is_replayed(await run_it(api, "corrected", priority=7))
    refused(await run_it(api, "corrected", priority="high"), 422)
    assert is_replayed(await run_it(api, "corrected", priority=7))


FAILING = """
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of luck'; END $$;
    CREATE TRIGGER failing BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION fail()
"""


@pytest.mark.parametrize(("event", "table"), [("INSERT", "attempts"), ("UPDATE", "idempotency")])
async def test_run_and_answer_are_kept_together_or_not_at_all(
    alone: httpx.AsyncClient, sql: Sql, event: str, table: str
):
    """Once the run cannot be written, once the answer cannot."""
    for statement in FAILING.format(event=event, table=table).split(";\n"):
        sql(statement)
    refused(await run_it(alone, "a-key"), 500)
    assert sql("SELECT count(*) FROM runs") == sql("SELECT count(*) FROM idempotency") == [(0,)]
    sql(f"DROP TRIGGER failing ON {table}")
    assert not is_replayed(await run_it(alone, "a-key"))
    assert is_replayed(await run_it(alone, "a-key"))
    assert sql("SELECT count(*) FROM runs") == [(1,)]


async def test_a_connection_that_is_cut_over_the_work_leaves_the_key_free(
    alone: httpx.AsyncClient, sql: Sql, database_url: str
):
    """The key is taken, and the run waits for a lock that somebody else holds."""
    waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'run_tags'::regclass"
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE run_tags")
        asking = asyncio.create_task(run_it(alone, "a-key"))
        (pid,) = (await until(lambda: asyncio.to_thread(sql, waiting)))[0]
        sql("SELECT pg_terminate_backend(%s, 5000)", pid)
        refused(await asking, 503)
    assert sql("SELECT count(*) FROM idempotency") == [(0,)]
    assert not is_replayed(await run_it(alone, "a-key"))


async def test_a_key_is_kept_for_a_day_and_then_free(alone: httpx.AsyncClient, sql: Sql):
    first = told(await run_it(alone, "a-key"), 201)
    kept_s = "SELECT extract(epoch FROM i.expires_at - r.created_at)::float FROM idempotency i, runs r"
    assert sql(kept_s) == [(86400.0,)]
    sql("UPDATE idempotency SET expires_at = now() + interval '5 s'")
    assert told(await run_it(alone, "a-key"), 201) == first
    sql("UPDATE idempotency SET expires_at = now() - interval '1 s'")
    other = await run_it(alone, "a-key", priority=7)
    assert not is_replayed(other) and other.json()["id"] != first["id"]
    assert told(await run_it(alone, "a-key", priority=7), 201) == other.json()
    refused(await run_it(alone, "a-key"), 409)


@pytest.mark.parametrize("key", [b"", b" ", b"a b", b"caf\xe9", "ключ".encode(), b"a\tb", b"a" * 256, b"\x7f"])
@pytest.mark.parametrize("call", CREATING)
async def test_a_key_of_another_form_is_refused(api: httpx.AsyncClient, call: str, key: bytes):
    path = call.removeprefix("POST ").format(name="nobody", run_id="nobody")
    answer = await api.post(path, headers=[(b"Idempotency-Key", key)], **CREATING[call])
    assert pointers(answer) == {"/header/idempotency-key"}


@pytest.mark.parametrize("key", ["!", "~" * 255, '"quoted"', "a,b;c=d", "018f3c1e-7d2a-7000-8000-000000000000"])
async def test_any_visible_ascii_is_a_key(api: httpx.AsyncClient, key: str):
    assert (await run_it(api, key)).content == (await run_it(api, key)).content


async def test_the_first_answer_is_given_whatever_became_of_it_since(alone: httpx.AsyncClient, sql: Sql):
    paths = await prepared(alone)
    calls = [call for call in CREATING if "runs" in call]
    first = {call: (await post(alone, paths[call], call.replace(" ", ""), **CREATING[call])).content for call in calls}

    async def as_before() -> bool:
        again = {call: await post(alone, paths[call], call.replace(" ", ""), **CREATING[call]) for call in calls}
        return all(is_replayed(answer) for answer in again.values()) and first == {
            call: answer.content for call, answer in again.items()
        }

    told(await alone.post("/runs/cancel", params={"created[gte]": 0}))
    assert await as_before()
    told(await alone.post("/definitions", json={**OP, "input_specs": {}}), 201)
    assert await as_before()
    told(await alone.post("/definitions/op/disable"))
    assert await as_before()
    assert (await alone.delete("/definitions/op")).status_code == 204
    assert await as_before()
    sql("DELETE FROM runs")
    assert await as_before()


async def test_a_deployment_repeated_does_not_become_the_latest_again(api: httpx.AsyncClient):
    body = {"id": "turned", "image": "a"}
    first = await post(api, "/definitions", "deployed-once", json=body)
    newer = told(await api.post("/definitions", json={**body, "image": "b"}), 201)
    assert is_replayed(await post(api, "/definitions", "deployed-once", json=body))
    assert told(await api.get("/definitions/turned")) == newer
    assert told(await api.post("/definitions", json=body), 200) == first.json()


async def test_an_answer_of_200_is_repeated_as_200(api: httpx.AsyncClient):
    told(await api.post("/definitions", json={"id": "was-there", "image": "a"}), 201)
    for _ in range(2):
        answer = await post(api, "/definitions", "was-there", json={"id": "was-there", "image": "a"})
        assert answer.status_code == 200
    assert is_replayed(answer)


async def test_keys_of_different_callers_do_not_meet(api: httpx.AsyncClient):
    """And those of two API keys of one name do: a client goes on across a rotation."""
    mine, rotated, yours = await a_key(api, "me"), await a_key(api, "me"), await a_key(api, "you")
    body = {"json": {"image": "alpine"}}
    answers = [
        await api.post("/runs", headers={"Idempotency-Key": "shared", **by(key)}, **body)
        for key in (mine, yours, rotated, yours)
    ]
    assert [is_replayed(answer) for answer in answers] == [False, False, True, True]
    assert answers[0].content == answers[2].content != answers[1].content == answers[3].content
    assert [told(answer, 201)["submitted_by"] for answer in answers] == ["me", "you", "me", "you"]


async def test_large_answers_are_repeated_byte_for_byte(api: httpx.AsyncClient):
    body = b'{"image":"a","inputs":{"z":1.00000000000000000000000000001,"a":"' + b"x" * 4_000_000 + b'"}}'
    first = await post(api, "/runs", "large", content=body)
    assert b'{"z":1.00000000000000000000000000001,"a"' in first.content
    assert (await post(api, "/runs", "large", content=body)).content == first.content
