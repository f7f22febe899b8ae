"""Refusals of the server itself: no key, no such path, wrong method, a crash."""

import asyncio
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolTimeout

from gyoza.server.app import create_app, running
from gyoza.server.settings import Settings

from .actors import pointers, refused, submit, told
from .conftest import KEY


async def test_a_refusal_is_a_problem_document(api: httpx.AsyncClient):
    problem = refused(await api.get("/runs/nobody"), 404)
    assert problem == {
        "type": "urn:gyoza:problem:run_not_found",
        "title": "Run not found",
        "status": 404,
        "detail": "OpRun 'nobody' not found",
        "code": "run_not_found",
    }


async def test_a_shape_error_names_place_sentence_and_code(api: httpx.AsyncClient):
    problem = refused(await api.post("/runs", json={"priority": "high"}), 422, "malformed")
    assert [set(fault) for fault in problem["errors"]] == [{"pointer", "detail", "code"}] * 2
    assert {fault["pointer"] for fault in problem["errors"]} == {"/image", "/priority"}


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/runs/a/b/c", "/runs//events", "/Runs", "/runs/", "/definitions/a/b", "/docs/oauth2-redirect"],
)
async def test_an_unknown_path_is_not_found(api: httpx.AsyncClient, path: str):
    refused(await api.get(path), 404, "no_such_path")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/runs"),
        ("PUT", "/runs/x"),
        ("DELETE", "/runs/x"),
        ("GET", "/runs/x/cancel"),
        ("PATCH", "/runs/x/events"),
        ("POST", "/runs/x/attempts"),
        ("PUT", "/definitions"),
        ("PATCH", "/definitions/x"),
        ("GET", "/definitions/x/runs"),
        ("POST", "/workers"),
        ("POST", "/workers/x"),
        ("GET", "/workers/x/claim"),
        ("GET", "/workers/x/reports"),
        ("POST", "/health"),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_refused(api: httpx.AsyncClient, method: str, path: str):
    answer = await api.request(method, path)
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": KEY.upper()},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
    ],
)
async def test_without_the_right_key_nothing_is_answered(api: httpx.AsyncClient, headers: dict[str, str]):
    del api.headers["X-API-Key"]
    try:
        for method, path in (
            ("GET", "/runs"),
            ("POST", "/runs"),
            ("GET", "/nothing"),
            ("GET", "/health/"),
            ("PUT", "/workers/w"),
        ):
            answer = await api.request(method, path, headers=headers, content=b"{broken")
            refused(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
    finally:
        api.headers["X-API-Key"] = KEY


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_bearer_token_is_as_good_as_the_header(api: httpx.AsyncClient, scheme: str):
    del api.headers["X-API-Key"]
    try:
        told(await api.get("/runs", headers={"Authorization": f"{scheme} {KEY}"}))
    finally:
        api.headers["X-API-Key"] = KEY


async def test_health_and_documents_are_open_to_all(api: httpx.AsyncClient):
    del api.headers["X-API-Key"]
    try:
        for path in ("/health", "/health/ready", "/openapi.json", "/docs"):
            assert (await api.get(path)).status_code == 200
            assert (await api.get(path, headers={"X-API-Key": "wrong"})).status_code == 200
    finally:
        api.headers["X-API-Key"] = KEY


@pytest.mark.parametrize("error", [psycopg.OperationalError, PoolTimeout])
async def test_a_database_that_cannot_be_reached_is_told_with_a_time(
    database_url: str, tmp_path: Path, error: type[Exception]
):
    async def ask() -> None:
        raise error("the inside")

    async with running(Settings(data_dir=tmp_path), database_url, asyncio.Event()) as context:
        app = create_app(context, KEY)
        app.add_api_route("/ask", ask)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://gyoza.test", headers={"X-API-Key": KEY}
        ) as client:
            answer = await client.get("/ask")
    assert "the inside" not in refused(answer, 503, "database_unavailable")["detail"]
    assert answer.headers["retry-after"] == "1"


async def test_a_server_without_its_database_is_not_ready(alone: httpx.AsyncClient, database_url: str, postgres: str):
    name = conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    answer = await alone.get("/health/ready")
    assert refused(answer, 503, "not_ready")["detail"] == "Not ready: database cannot be reached"
    assert answer.headers["retry-after"] == "1"
    told(await alone.get("/health"))


async def test_a_crash_is_told_without_its_inside(database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async def crash() -> None:
        raise RuntimeError("the inside")

    async with running(Settings(data_dir=tmp_path), database_url, asyncio.Event()) as context:
        app = create_app(context, KEY)
        app.add_api_route("/crash", crash)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"X-API-Key": KEY}
        async with httpx.AsyncClient(transport=transport, base_url="http://gyoza.test", headers=headers) as client:
            answer = await client.get("/crash")
            refused(answer, 500, "internal_error")
            assert "the inside" not in answer.text
            told(await client.get("/health"))
    assert "the inside" in caplog.text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/runs", "GET, HEAD, POST"),
        ("/runs/x", "GET, HEAD, PATCH"),
        ("/runs/x/events", "GET, HEAD, POST"),
        ("/runs/x/cancel", "POST"),
        ("/runs/cancel", "POST"),
        ("/definitions", "GET, HEAD, POST"),
        ("/workers/x", "DELETE, GET, HEAD, PUT"),
        ("/files/x", "DELETE, GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
async def test_allow_names_all_methods_of_a_path(api: httpx.AsyncClient, path: str, allowed: str):
    for method in ("OPTIONS", "TRACE", "QUERY"):
        answer = await api.request(method, path)
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed


async def test_head_is_answered_wherever_get_is_and_has_no_body(api: httpx.AsyncClient):
    run = await submit(api)
    for path in ("/runs", f"/runs/{run['id']}", "/health", "/openapi.json", "/runs/nobody", "/runs?limit=0"):
        got, told_of = await api.get(path), await api.head(path)
        assert (told_of.status_code, told_of.content) == (got.status_code, b"")
        assert told_of.headers["content-length"] == got.headers["content-length"]
        assert told_of.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/definitions/a%00b", "/path/name"),
        ("/definitions/a%00b/revisions", "/path/name"),
        ("/workers/a%00b", "/path/worker_id"),
        (f"/workers/{'x' * 201}", "/path/worker_id"),
        ("/runs?image=%00", "/query/image"),
        ("/runs?a%00/b=1", "/query/a\0~1b"),
        ("/runs?limit=x", "/query/limit"),
        ("/runs?created[gte]=x", "/query/created[gte]"),
        ("/runs/%FF", "/path"),
        ("/runs/%ED%A0%80", "/path"),
        ("/runs?image=a&image=%FF%FE", "/query/image"),
    ],
)
async def test_what_is_wrong_with_a_path_or_query_is_pointed_at(api: httpx.AsyncClient, path: str, pointer: str):
    assert pointers(await api.get(path)) == {pointer}


async def test_a_path_is_refused_by_its_place_on_thin_calls_too(api: httpx.AsyncClient):
    for method in ("POST", "PATCH", "PUT"):
        for path, named in (
            ("/definitions/%00/runs", "name"),
            ("/workers/%00", "worker_id"),
            ("/workers/%00/claim", "worker_id"),
        ):
            answer = await api.request(method, path, json={})
            assert answer.status_code == 405 or pointers(answer) == {f"/path/{named}"}


async def test_a_compressed_body_is_refused_by_its_header(api: httpx.AsyncClient):
    for path in ("/runs", "/definitions", "/files"):
        answer = await api.post(path, content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
        assert pointers(answer) == {"/header/content-encoding"}
    told(await api.post("/runs", json={"image": "a"}, headers={"Content-Encoding": "Identity"}), 201)


async def test_a_percent_sign_alone_is_a_percent_sign(api: httpx.AsyncClient):
    assert refused(await api.get("/definitions/100%"), 404)["detail"] == "OpDefinition '100%' not found"
    assert told(await api.get("/runs?image=100%"))["data"] == []


async def test_a_range_that_a_file_does_not_have_is_a_problem_too(api: httpx.AsyncClient):
    kept = (await api.post("/files", content=b"hello")).json()
    answer = await api.get(f"/files/{kept['id']}", headers={"Range": "bytes=9-"})
    refused(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */5"


@pytest.mark.parametrize("wanted", ["lines=1-2", "bytes=3-1", "bytes=", "bytes=-", "bytes=x-", "bytes=1-2,x"])
async def test_a_range_that_is_none_is_passed_over(api: httpx.AsyncClient, wanted: str):
    kept = (await api.post("/files", content=b"hello")).json()
    answer = await api.get(f"/files/{kept['id']}", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, b"hello")


async def test_inputs_that_do_not_fit_are_named_by_their_place(api: httpx.AsyncClient):
    specs = {"x": {"type": "int"}, "a/b": {"type": "string"}}
    told(await api.post("/definitions", json={"id": "places", "image": "a", "input_specs": specs}), 201)
    problem = refused(await api.post("/definitions/places/runs", json={"inputs": {"x": "1", "y": 1}}), 400)
    assert problem["errors"] == [
        {
            "pointer": "/inputs/y",
            "detail": "'y' is not an input of this op (it takes: x, a/b)",
            "code": "unknown_member",
        },
        {"pointer": "/inputs/x", "detail": "'x' must be of type int, not string", "code": "wrong_type"},
        {"pointer": "/inputs/a~1b", "detail": "'a/b' is required (string)", "code": "missing"},
    ]
    assert problem["detail"] == "Invalid inputs: " + "; ".join(fault["detail"] for fault in problem["errors"])
