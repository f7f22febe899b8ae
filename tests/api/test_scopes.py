"""Every route with every key, and with none: refused exactly where its scopes say so, before any body is read."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from gyoza.control.keys import new_text
from gyoza.models.keys import GRANTS, Scope
from gyoza.server.app import ROUTERS, create_app
from gyoza.server.auth import OPEN_PATHS
from gyoza.server.context import Context

from .actors import Json, Worker, a_key, by, refused, submit, told
from .conftest import KEY, Listening, client_of
from .test_connection import dialled, head
from .test_keys import Moved

Call = tuple[str, str]
SCOPES = {call: scopes for router in ROUTERS for call, scopes in router.scopes.items()}
"""What each call needs one of."""
GUARDED = sorted((call for call, scopes in SCOPES.items() if scopes), key=lambda call: (call[0] == "DELETE", call))
"""What takes something away comes last."""


@dataclass(frozen=True)
class Told:
    """How an answer began, and how often the body was asked for before that."""

    status: int
    reads: int


@dataclass(frozen=True)
class Server:
    """`held` is what worker w1 holds: a run and a file that it names; nothing else is there."""

    app: FastAPI
    api: httpx.AsyncClient
    clock: Moved
    held: Json

    async def ask(self, call: Call, headers: dict[str, str], **path: str) -> Told:
        """The beginning of the answer, which may be a stream without an end; the body is empty."""
        reads, began = 0, asyncio.get_running_loop().create_future()

        async def receive() -> Json:
            nonlocal reads
            reads += 1
            if reads > 1:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start" and not began.done():
                began.set_result(Told(message["status"], reads))

        answering = asyncio.create_task(self.app(scope_of(call, headers, path), receive, send))
        await asyncio.wait([began, answering], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        assert began.done(), f"{call} is not answered"
        return began.result()


def scope_of(call: Call, headers: dict[str, str], path: dict[str, str]) -> Json:
    method, pattern = call
    filled = re.sub(r"{(\w+)(?::\w+)?}", lambda name: path.get(name[1], "1"), pattern)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": filled,
        "raw_path": filled.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("gyoza.test", 80),
        "state": {},
    }


@pytest.fixture
async def served(server: Context) -> AsyncIterator[Server]:
    server.database.clock = clock = Moved()
    async with client_of(server) as api:
        file = told(await api.post("/files", content=b"bytes"), 201)
        worker = await Worker(api, "w1").registered()
        run = await submit(api, inputs={"file": file["uri"]})
        held = await worker.assignment()
        yield Server(create_app(server, KEY), api, clock, {"run_id": run["id"], "file_id": file["id"], **held})


async def test_every_route_is_open_to_those_keys_that_its_scopes_name_and_to_no_other(served: Server):
    granting = {
        "worker": await a_key(served.api, "of w1", scopes=["worker"], worker="w1"),
        **{scope: await a_key(served.api, scope, scopes=[scope]) for scope in ("read", "submit", "admin")},
    }
    nothing = {"worker_id": "w2", "run_id": str(uuid4()), "file_id": str(uuid4()), "key_id": str(uuid4())}
    its_own = {**nothing, "worker_id": "w1", "run_id": served.held["run_id"], "file_id": served.held["file_id"]}
    wrong: list[str] = []
    for scope, key in granting.items():
        for call in GUARDED:
            answer = await served.ask(call, by(key), **(its_own if scope == "worker" else nothing))
            may = bool(GRANTS[Scope(scope)] & set(SCOPES[call]))
            if (may and answer.status in (401, 403, 500)) or (not may and answer != Told(403, reads=0)):
                wrong.append(f"{call} with scope {scope}: {answer}")
    assert wrong == []


async def test_without_a_good_key_no_route_reads_anything(served: Server):
    expired = await a_key(served.api, expires_in_s=60, scopes=["admin"])
    revoked = await a_key(served.api, scopes=["admin"])
    told(await served.api.get("/keys", headers=by(expired)))
    await served.api.delete(f"/keys/{revoked['id']}")
    served.clock.ahead = timedelta(seconds=60)
    bad = {
        "none": {},
        "an empty one": by(""),
        "a wrong one": by("wrong"),
        "an unknown one": by(new_text()),
        "an expired one": by(expired),
        "a revoked one": by(revoked),
        "as Basic": {"Authorization": f"Basic {KEY}"},
        "as a bare Bearer": {"Authorization": "Bearer"},
        "a wrong one beside a right one": {**by("wrong"), "Authorization": f"Bearer {KEY}"},
    }
    calls = [*GUARDED, ("GET", "/nothing"), ("POST", "/nothing"), ("GET", "/health/"), ("OPTIONS", "/runs")]
    wrong = [
        f"{call} with {what}: {answer}"
        for what, headers in bad.items()
        for call in calls
        if (answer := await served.ask(call, headers)) != Told(401, reads=0)
    ]
    assert wrong == []


async def test_what_is_open_to_all_is_open_with_any_key(served: Server):
    for path in OPEN_PATHS:
        for headers in ({}, by("wrong"), by(new_text())):
            assert (await served.ask(("GET", path), headers)).status == 200


def routes(of: Any) -> Iterator[Call]:
    """Those of an app, and of the routers in it."""
    for route in of.routes:
        if inner := getattr(route, "original_router", None):
            yield from routes(inner)
        for method in (getattr(route, "methods", None) or set()) - {"HEAD"}:
            yield method, route.path


def unguarded(app: FastAPI) -> set[str]:
    return {path for method, path in routes(app) if not SCOPES.get((method, path))}


async def test_every_route_names_its_scopes_unless_it_is_open_to_all(served: Server):
    assert set(SCOPES) <= set(routes(served.app))
    assert unguarded(served.app) == OPEN_PATHS


async def test_a_route_without_scopes_would_be_noticed(server: Context):
    async def secret() -> str:
        return "for everybody"

    app = create_app(server, KEY)
    app.add_api_route("/secret", secret)
    assert unguarded(app) == {*OPEN_PATHS, "/secret"}


async def test_the_document_names_the_scopes_of_every_call(api: httpx.AsyncClient):
    document = told(await api.get("/openapi.json"))
    said = {
        (method.upper(), path): operation.get("security", [])
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert set(said) == {call for call in SCOPES if call[1] not in ("/docs", "/openapi.json")}
    for call, security in said.items():
        assert {(header, *scopes) for each in security for header, scopes in each.items()} == {
            (header, scope.value) for scope in SCOPES[call] for header in ("key", "bearer")
        }, call
    assert set(document["components"]["securitySchemes"]) == {"key", "bearer"}


@pytest.mark.parametrize(
    "call",
    ["POST /runs", "POST /files", "POST /keys", "PUT /workers/w1", "POST /workers/w1/reports", "PATCH /runs/x"],
)
async def test_a_body_that_never_comes_is_not_waited_for(listening: Listening, call: str):
    base = "http://{}:{}".format(*listening.address)
    async with httpx.AsyncClient(base_url=base, headers=by(KEY)) as api:
        reading = await a_key(api, scopes=["read"])
    for key, status in ((reading["key"], 403), (new_text(), 401)):
        async with dialled(listening) as line:
            await line.send(head(*call.split(), f"X-API-Key: {key}", "Content-Length: 1000000"))
            assert (await line.answer())[0] == status


async def test_a_missing_scope_is_told_with_what_there_is_and_what_is_lacking(api: httpx.AsyncClient):
    key = await a_key(api, "ci", scopes=["read"])
    problem = refused(await api.post("/runs", headers=by(key), content=b"{broken"), 403, "forbidden")
    assert problem["detail"].startswith("The key 'ci' lacks the scope submit: it has read.")
