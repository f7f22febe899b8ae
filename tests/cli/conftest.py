"""The CLI, and a little Gyoza for it to talk to: a server that really listens and plays runs from a script."""

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from typer.testing import CliRunner

from gyoza.cli.app import app

RUN_ID = "01980000-0000-7000-8000-000000000001"
NOW = "2026-03-01T12:00:0{}.000000+00:00"
KEY = "right-key"


class LittleGyoza:
    """`script`: events that the only run goes through, one more with every look at them."""

    def __init__(self) -> None:
        self.url = ""
        self.forget()

    def forget(self) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}
        self.files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.script: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.asked: dict[str, Any] = {}
        self.run = a_run()
        self.has_more = False
        self.workers: list[dict[str, Any]] = []
        self.matched = self.changed = 3
        self.swept: list[str] = []
        self.removed: list[str] = []
        self.key: str | None = None
        self.query = ""
        self.logs: list[bytes] = []
        self.keys: list[dict[str, Any]] = []

    def routes(self) -> list[Route]:
        return [
            Route("/definitions", self.upsert, methods=["POST"]),
            Route("/definitions", self.list_definitions),
            Route("/definitions/{name}", self.definition),
            Route("/definitions/{name}/runs", self.create, methods=["POST"]),
            Route("/definitions/{name}", self.remove, methods=["DELETE"]),
            Route("/definitions/{name}/{verb}", self.able, methods=["POST"]),
            Route("/runs", self.list_runs),
            Route("/runs/{id}", self.get_run),
            Route("/runs/{id}/events", self.get_events),
            Route("/runs/{id}/events/stream", self.stream_events),
            Route("/runs/{id}/logs", self.get_logs),
            Route("/runs/{id}", self.update, methods=["PATCH"]),
            Route("/runs/cancel", self.sweep, methods=["POST"]),
            Route("/runs/retry", self.sweep, methods=["POST"]),
            Route("/runs/{id}/replay", self.replay, methods=["POST"]),
            Route("/runs/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/runs/{id}/retry", self.retry, methods=["POST"]),
            Route("/files", self.put_file, methods=["POST"]),
            Route("/files/{id}", self.get_file),
            Route("/keys", self.create_key, methods=["POST"]),
            Route("/keys", self.list_keys),
            Route("/keys/{id}", self.revoke_key, methods=["DELETE"]),
            Route("/workers", self.list_workers),
            Route("/workers/{id}/{verb}", self.drain, methods=["POST"]),
            Route("/workers/{id}", self.remove, methods=["DELETE"]),
        ]

    async def upsert(self, request: Request) -> Response:
        said = await request.json()
        new = said != {name: self.definitions.get(said["id"], {}).get(name) for name in said}
        self.definitions[said["id"]] = {**said, "revision": 1, "digest": "sha256:abc"}
        return JSONResponse(self.definitions[said["id"]], 201 if new else 200)

    async def list_definitions(self, request: Request) -> Response:
        return JSONResponse(list(self.definitions.values()))

    async def definition(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.definitions:
            return problem(404, "definition_not_found", f"OpDefinition '{name}' not found")
        return JSONResponse(self.definitions[name])

    async def create(self, request: Request) -> Response:
        self.asked, self.key = await request.json(), request.headers.get("idempotency-key")
        if "refuse" in self.asked["inputs"]:
            return problem(400, "invalid_inputs", "Invalid inputs: 'refuse' is not an input of this op")
        self.run |= {"op_definition": request.path_params["name"], "inputs": self.asked["inputs"]}
        return JSONResponse(self.run, 201)

    async def list_runs(self, request: Request) -> Response:
        self.asked, self.query = dict(request.query_params), request.url.query
        page = {"object": "list", "data": [self.run], "has_more": self.has_more, "url": "/runs"}
        return JSONResponse(page)

    async def get_run(self, request: Request) -> Response:
        if request.path_params["id"] != RUN_ID:
            return problem(404, "run_not_found", f"OpRun '{request.path_params['id']}' not found")
        return JSONResponse(self.run)

    async def stream_events(self, request: Request) -> Response:
        """The whole script, in two connections; it stays open where that does not end the run."""
        last = int(request.headers.get("last-event-id", "-1"))

        async def play() -> AsyncIterator[str]:
            if last < 0 and self.script:
                self.step(self.script.pop(0))
            for event in self.events[last + 1 :]:
                yield told(event, self.run["state"])
            while last >= 0 and self.script:
                self.step(self.script.pop(0))
                yield told(self.events[-1], self.run["state"])
            if self.run["state"] in ("COMPLETED", "FAILED", "CANCELLED"):
                yield f"event: end\ndata: {json.dumps({'state': self.run['state']})}\n\n"
            elif last >= 0:
                while not await request.is_disconnected():
                    await asyncio.sleep(0.02)

        return StreamingResponse(play(), media_type="text/event-stream")

    async def get_events(self, request: Request) -> Response:
        if self.script:
            self.step(self.script.pop(0))
        after = int(request.query_params.get("after", -1))
        # The state of a row is the run's when the server looked, which may be before the event.
        rows = [{**event, "state": "PENDING"} for event in self.events if event["id"] > after]
        return JSONResponse({"events": rows})

    async def get_logs(self, request: Request) -> Response:
        """One more part of `logs` with every look."""
        if request.path_params["id"] != RUN_ID:
            return problem(404, "run_not_found", f"OpRun '{request.path_params['id']}' not found")
        self.asked = dict(request.query_params)
        headers = {"Gyoza-Attempt": "1", "Gyoza-Log-Ended": "false" if self.logs[1:] else "true"}
        return Response(self.logs.pop(0) if self.logs else b"", headers=headers)

    def step(self, event: dict[str, Any]) -> None:
        number = len(self.events)
        self.run |= event.pop("run", {})
        self.events.append({"id": number, "t": NOW.format(number), "msg": "", "payload": None, "attempt": 1, **event})

    async def update(self, request: Request) -> Response:
        self.asked = await request.json()
        self.run |= self.asked
        return JSONResponse(self.run)

    async def sweep(self, request: Request) -> Response:
        self.swept.append(f"{request.url.path}?{request.url.query}")
        dry_run = "dry_run" in request.query_params
        changed = 0 if dry_run else self.changed
        answer = {"matched": self.matched, "changed": changed, "has_more": self.has_more, "dry_run": dry_run}
        return JSONResponse(answer)

    async def replay(self, request: Request) -> Response:
        self.asked = await request.json()
        self.run |= {"replay_of": request.path_params["id"]}
        return JSONResponse(self.run, 201)

    async def able(self, request: Request) -> Response:
        definition = self.definitions[request.path_params["name"]]
        return JSONResponse({**definition, "disabled": request.path_params["verb"] == "disable"})

    async def remove(self, request: Request) -> Response:
        self.removed.append(request.url.path)
        return Response(status_code=204)

    async def cancel(self, request: Request) -> Response:
        self.run["state"] = "CANCELLED"
        return JSONResponse(self.run)

    async def retry(self, request: Request) -> Response:
        return problem(400, "transition_refused", f"OpRun '{RUN_ID}' is COMPLETED: it cannot be retried")

    async def put_file(self, request: Request) -> Response:
        content = await request.body()
        file_id = f"f{len(self.files) + 1}"
        stored = {
            "id": file_id,
            "uri": f"gyoza://files/{file_id}",
            "name": request.query_params["name"],
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "media_type": request.headers["content-type"],
        }
        self.files[file_id] = stored, content
        return JSONResponse(stored, 201)

    async def get_file(self, request: Request) -> Response:
        file_id = request.path_params["id"]
        if file_id not in self.files:
            return problem(404, "file_not_found", f"File '{file_id}' not found")
        return Response(self.files[file_id][1])

    async def create_key(self, request: Request) -> Response:
        self.asked = await request.json()
        self.keys.append(a_key(f"k{len(self.keys) + 1}", **self.asked))
        return JSONResponse({**self.keys[-1], "key": "gyoza_secret"}, 201)

    async def list_keys(self, request: Request) -> Response:
        return JSONResponse(self.keys)

    async def revoke_key(self, request: Request) -> Response:
        found = [key for key in self.keys if key["id"] == request.path_params["id"]]
        if not found:
            return problem(404, "key_not_found", f"Key '{request.path_params['id']}' not found")
        found[0]["revoked_at"] = NOW.format(5)
        return Response(status_code=204)

    async def list_workers(self, request: Request) -> Response:
        return JSONResponse(self.workers)

    async def drain(self, request: Request) -> Response:
        drain = request.path_params["verb"] == "drain"
        return JSONResponse({"id": request.path_params["id"], "drain": drain})


class Guarded:
    """401 for any other key, before anything else."""

    def __init__(self, inner: Starlette):
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        key = dict(scope.get("headers", ())).get(b"x-api-key", b"").decode()
        answer = self.inner if key == KEY else problem(401, "unauthorized", "Unknown API key")
        await answer(scope, receive, send)


def told(event: dict[str, Any], state: str) -> str:
    return f"id: {event['id']}\ndata: {json.dumps({**event, 'state': state})}\n\n"


def problem(status: int, code: str, detail: str) -> Response:
    body = {"type": "about:blank", "title": "", "status": status, "code": code, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


def a_run(**more: Any) -> dict[str, Any]:
    summary = {"duration_ms": None, "worker_id": None, "error_message": None, "gpu_id": None}
    return {
        "id": RUN_ID,
        "state": "PENDING",
        "priority": 5,
        "image": None,
        "op_definition": "count",
        "inputs": {},
        "outputs": {},
        "progress": 0,
        "current_attempt": 1,
        "execution_summary": summary,
        "created_at": NOW.format(0),
        "updated_at": NOW.format(1),
        "reason": None,
        "version": None,
        "tags": [],
        "run_at": None,
        "submitted_by": None,
        "replay_of": None,
        "pinned": False,
        **more,
    }


def a_key(key_id: str, name: str, expires_in_s: float | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": f"01980000-0000-7000-8000-{key_id:0>12}",
        "name": name,
        "scopes": ["submit"],
        "worker": None,
        "hint": "cret",
        "created_at": NOW.format(0),
        "created_by": "bootstrap",
        "expires_at": NOW.format(9) if expires_in_s else None,
        "revoked_at": None,
        "last_used_at": None,
        **more,
    }


@pytest.fixture(scope="session")
def listening() -> Iterator[LittleGyoza]:
    little = LittleGyoza()
    served = Guarded(Starlette(routes=little.routes()))
    with socket.create_server(("127.0.0.1", 0)) as port:
        little.url = f"http://127.0.0.1:{port.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(served, log_level="error", ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([port],))
        thread.start()
        yield little
        server.should_exit = True
        thread.join()


@pytest.fixture
def little(listening: LittleGyoza, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LittleGyoza:
    listening.forget()
    monkeypatch.setenv("GYOZA_SERVER_URL", listening.url)
    monkeypatch.setenv("GYOZA_API_KEY", KEY)
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path / "no-data"))
    monkeypatch.chdir(tmp_path)
    return listening


@pytest.fixture
def gyoza() -> Callable[..., Any]:
    """`gyoza("run", "count")`: the result, with stdout and stderr apart."""

    def call(*args: str, stdin: str | None = None) -> Any:
        return CliRunner().invoke(app, list(args), input=stdin)

    return call


@pytest.fixture
def count(little: LittleGyoza) -> dict[str, Any]:
    """An op that is deployed, with an input of every type."""
    types = ("string", "int", "float", "bool", "list", "dict", "any", "file")
    little.definitions["count"] = {
        "id": "count",
        "version": "1.0",
        "revision": 3,
        "digest": "sha256:abc",
        "description": "Counts.",
        "image": "img",
        "input_specs": {name: {"type": name, "required": False, "default": None} for name in types},
        "output_specs": {"n": {"type": "int", "required": True, "default": None}},
        "constraints": {"cpu": 2, "ram_mb": None, "vram_mb": None},
        "retry_policy": {"max_attempts": 1},
        "bundle": None,
        "tags": ["demo"],
        "disabled": False,
    }
    return little.definitions["count"]
