"""Refusals of the server itself: no key, no such path, wrong method, a crash."""

import asyncio
from pathlib import Path

import httpx
import pytest

from gyoza.server.app import create_app, running
from gyoza.server.settings import Settings

from .actors import refused, submit, told
from .conftest import KEY


async def test_a_refusal_is_a_problem_document(api: httpx.AsyncClient):
    problem = refused(await api.get("/runs/nobody"), 404)
    assert problem == {
        "type": "urn:gyoza:problem:run_not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "OpRun 'nobody' not found",
        "code": "run_not_found",
    }


async def test_a_shape_error_names_place_sentence_and_code(api: httpx.AsyncClient):
    problem = refused(await api.post("/runs", json={"priority": "high"}), 422, "malformed")
    assert [set(fault) for fault in problem["errors"]] == [{"pointer", "detail", "code"}] * 2
    assert {fault["pointer"] for fault in problem["errors"]} == {"/image", "/priority"}


@pytest.mark.parametrize("path", ["/", "/nothing", "/runs/a/b/c", "/runs//events", "/Runs", "/definitions/a/b"])
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


@pytest.mark.parametrize("path", ["/definitions/a%00b", "/definitions/a%00b/revisions", "/workers/a%00b"])
async def test_a_name_that_could_never_be_kept_is_refused(api: httpx.AsyncClient, path: str):
    refused(await api.get(path), 422, "malformed")


async def test_a_question_that_is_odd_is_no_crash(api: httpx.AsyncClient):
    run = await submit(api)
    for path in (
        "/runs?image=%FF%FE",
        "/runs?state=%00",
        f"/runs/{run['id']}/events?after=%00",
        "/runs?limit=%ED%A0%80",
    ):
        assert (await api.get(path)).status_code < 500
