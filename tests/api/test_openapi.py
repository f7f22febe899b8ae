"""The OpenAPI document names every call, and what is really answered is what it says."""

from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from .actors import Json, Worker, a_key, by, event, say, submit, told
from .openapi import Document

CALLS = """
    GET /health
    GET /health/ready
    POST /definitions
    GET /definitions
    GET /definitions/{name}
    GET /definitions/{name}/revisions
    POST /definitions/{name}/runs
    GET /runs
    POST /runs
    GET /runs/{run_id}
    PATCH /runs/{run_id}
    POST /runs/{run_id}/retry
    POST /runs/{run_id}/cancel
    GET /runs/{run_id}/events
    POST /runs/{run_id}/events
    GET /runs/{run_id}/attempts
    GET /runs/{run_id}/logs
    PUT /runs/{run_id}/attempts/{attempt}/logs
    PUT /workers/{worker_id}
    POST /workers/{worker_id}/claim
    POST /workers/{worker_id}/reports
    GET /workers
    GET /workers/{worker_id}
    POST /workers/{worker_id}/drain
    POST /workers/{worker_id}/resume
    DELETE /workers/{worker_id}
    POST /files
    GET /files/{file_id}
    DELETE /files/{file_id}
    POST /keys
    GET /keys
    DELETE /keys/{key_id}
"""


@pytest.fixture
async def document(api: httpx.AsyncClient) -> Json:
    return told(await api.get("/openapi.json"))


async def test_every_call_is_in_the_document_and_answers_as_it_says(
    alone: httpx.AsyncClient, worker: Callable[..., Worker], document: Json
):
    read, seen = Document(document), list[httpx.Response]()

    async def remember(answer: httpx.Response) -> None:
        await answer.aread()
        seen.append(answer)

    alone.event_hooks["response"].append(remember)
    await live_a_whole_life(alone, worker("w1", gpus=[{"id": 0, "uuid": "u", "name": "n", "vram_mb": 1}]))
    await be_refused_everywhere(alone)
    assert [fault for answer in seen for fault in read.faults(answer)] == []
    named = {tuple(line.split()) for line in CALLS.strip().splitlines()}
    assert named <= read.calls
    assert {read.call_of(answer) for answer in seen if answer.is_success} >= named


async def live_a_whole_life(api: httpx.AsyncClient, one: Worker) -> None:
    """Every call, answered well."""
    spec = {"x": {"type": "int", "required": False, "default": 1}}
    delivery = {"topic": "t", "attributes": {"a": 1}}
    content = {"id": "op", "version": "1", "image": "a", "input_specs": spec, "output_specs": spec}
    for _ in range(2):
        await api.post("/definitions", json={**content, "event_delivery": delivery, "timeouts": {"run_s": 5}})
    await one.beat()
    run = told(await api.post("/definitions/op/runs", json={}), 201)
    held = await one.assignment()
    await one.beat(held)
    happened = (event("STARTED"), event("PROGRESS", 5), event("INFO", "x"))
    await one.report(held, *happened, summary={"exit_code": 0, "cpu_s": 1.5, "gpu_ids": [0]})
    await one.send(5, {**one.report_of(held), "seq": "x"}, one.report_of(held, run_id=str(uuid4())))
    await one.log(held, b"hello", 0)
    await api.get(f"/runs/{run['id']}/logs")
    await api.get("/workers/w1")
    await api.post(f"/runs/{run['id']}/cancel")
    await one.claim(held)
    await one.beat(held)
    await one.log(held, b"hello", 7)
    await one.report(held, settled=True)
    await api.get(f"/runs/{run['id']}/logs?attempt=1&follow=true")
    await api.post(f"/runs/{run['id']}/retry")
    await api.post("/workers/w1/drain")
    own = await submit(api, event_delivery=delivery, constraints={"cpu": 0.5})
    await say(api, own, "STARTED", payload={"worker_id": "me", "gpu_id": "cuda:0"})
    await api.patch(f"/runs/{own['id']}", json={"state": "FAILED", "outputs": {"x": 1}})
    for path in ("", "/events", "/attempts"):
        await api.get(f"/runs/{own['id']}{path}")
        await api.get(f"/runs/{run['id']}{path}")
    kept = told(await api.post("/files", params={"name": "a.txt"}, content=b"hello"), 201)
    await api.post("/files", params={"name": "a.txt"}, content=b"hello")
    paths = ["runs", "definitions", "definitions/op", "definitions/op/revisions", "workers", "health", "health/ready"]
    for path in paths:
        await api.get(f"/{path}")
    await api.get(f"/files/{kept['id']}")
    await api.delete(f"/files/{kept['id']}")
    await api.post("/workers/w1/resume")
    await api.delete("/workers/w1")
    await a_key(api, expires_in_s=60)
    used = await a_key(api, scopes=["worker"], worker="w1")
    await api.get("/workers/w1", headers=by(used))
    await api.delete(f"/keys/{used['id']}")
    await api.get("/keys")


async def be_refused_everywhere(api: httpx.AsyncClient) -> None:
    """Not found, wrong state, wrong shape, too large, no key."""
    run, large = await submit(api), b'{"x": "' + b"x" * 16 * 2**20 + b'"}'
    for path in (
        "runs/x",
        "runs/x/events",
        "runs/x/attempts",
        "runs/x/logs",
        f"runs/{run['id']}/logs?attempt=2",
        "definitions/x",
        "definitions/x/revisions",
        "workers/x",
    ):
        await api.get(f"/{path}")
    for path in ("runs/x/retry", "runs/x/cancel", "workers/x/drain", "workers/x/resume", f"runs/{run['id']}/retry"):
        await api.post(f"/{path}")
    for query in ("limit=0", "state=x", "image=%00", "created[gte]=x"):
        await api.get(f"/runs?{query}")
    await api.get(f"/runs/{run['id']}/events?after=x")
    bodies = (b"", b"{}", b"[]", large)
    posts = (
        "runs",
        "definitions",
        "definitions/op/runs",
        f"runs/{run['id']}/events",
        "workers/x/claim",
        "workers/x/reports",
        "keys",
    )
    for method, path in [("PATCH", f"runs/{run['id']}"), ("PUT", "workers/x"), *(("POST", path) for path in posts)]:
        for body in bodies:
            await api.request(method, f"/{path}", content=body)
        await api.request(method, f"/{path}", headers={"X-API-Key": "wrong"})
    await say(api, run, "COMPLETED")
    await say(api, run, "INFO", attempt=2)
    await api.post("/definitions/op/runs", json={"inputs": {"x": "1", "y": 2}})
    await api.patch(f"/runs/{run['id']}", json={"state": "ASSIGNED"})
    await api.post("/workers/x/claim", json={"instance": "i"})
    await api.post("/workers/x/reports", json={"instance": "i", "reports": []})
    for lease, body in ({}, b""), ({"Gyoza-Lease": "x"}, b""), ({"Gyoza-Lease": "x"}, large):
        for path in ("runs/x", f"runs/{run['id']}"):
            await api.put(f"/{path}/attempts/1/logs?offset=0", headers=lease, content=body)
    await api.get("/files/x")
    await api.delete("/workers/x")
    await api.delete("/keys/x")
    reading = await a_key(api, scopes=["read"])
    for method, path in (("POST", "runs"), ("POST", "keys"), ("GET", "keys"), ("DELETE", "files/x")):
        await api.request(method, f"/{path}", headers=by(reading))
    for path in ("runs", f"runs/{run['id']}", "definitions", "workers", "keys"):
        await api.get(f"/{path}", headers={"X-API-Key": "wrong"})


async def test_bodies_of_thin_calls_are_described(document: Json):
    for call, shape in {
        "post /runs": "CreateRun",
        "patch /runs/{run_id}": "UpdateRun",
        "post /runs/{run_id}/events": "EventBody",
        "post /definitions": "Deploy",
        "put /workers/{worker_id}": "Heartbeat",
        "post /workers/{worker_id}/claim": "ClaimBody",
        "post /workers/{worker_id}/reports": "ReportsBody",
        "post /keys": "CreateKey",
    }.items():
        method, path = call.split()
        body = document["paths"][path][method]["requestBody"]
        assert body["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{shape}"}
        assert document["components"]["schemas"][shape]["properties"]


async def test_every_reference_leads_somewhere(document: Json):
    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set[str]()
            return own.union(*(references(each) for each in node.values()))
        return set[str]().union(*(references(each) for each in node)) if isinstance(node, list) else set()

    found = references(document)
    assert found
    assert found <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
