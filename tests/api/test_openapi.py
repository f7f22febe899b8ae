"""The OpenAPI document names every call, and what is really answered is what it says."""

import re
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from openapi_spec_validator import validate

from gyoza.server import schemas
from tools.reference import story

from .actors import Json, Worker, a_key, by, event, say, submit, told
from .openapi import Document


@pytest.fixture(scope="session")
async def document(api: httpx.AsyncClient) -> Json:
    return told(await api.get("/openapi.json"))


async def test_every_call_is_in_the_document_and_answers_as_it_says(
    alone: httpx.AsyncClient, worker: Callable[..., Worker], document: Json
):
    read, seen = Document(document), list[httpx.Response]()

    async def remember(answer: httpx.Response) -> None:
        await answer.aread()
        if answer.request.url.path != "/openapi.json":
            seen.append(answer)

    alone.event_hooks["response"].append(remember)
    await story.record(alone)
    await live_a_whole_life(alone, worker("w1", gpus=[{"id": 0, "uuid": "u", "name": "n", "vram_mb": 1}]))
    await be_refused_everywhere(alone)
    assert [fault for answer in seen for fault in read.faults(answer)] == []
    unheard = read.calls - {read.call_of(answer) for answer in seen if answer.is_success}
    assert unheard == set(), "tell of them in tools/reference/story.py"


async def live_a_whole_life(api: httpx.AsyncClient, one: Worker) -> None:
    """What the story does not tell: failures, cancels of what a worker holds, the same thing twice."""
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
    paths = [
        "runs",
        "definitions",
        "definitions/op",
        "definitions/op/revisions",
        "workers",
        "health",
        "health/ready",
        "metrics",
    ]
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


def test_the_document_is_a_document(document: Json):
    validate(document)


def test_an_operation_has_a_name_of_its_own_and_texts(document: Json):
    operations = Document(document).operations.values()
    names = [operation["operationId"] for operation in operations]
    assert sorted(names) == sorted(set(names))
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    assert [each["operationId"] for each in operations if not each["summary"] or not each["description"]] == []


def test_what_is_answered_is_closed_and_whole(document: Json):
    for name, shape in document["components"]["schemas"].items():
        if name.endswith("Out"):
            assert shape["additionalProperties"] is False, name
            assert set(shape["required"]) == set(shape["properties"]), name


def test_bodies_of_clients_of_old_are_open_and_ours_are_closed(document: Json):
    shapes = {shape.__name__: shape for shape in (*schemas.Kept.__subclasses__(), *schemas.Ours.__subclasses__())}
    described = document["components"]["schemas"]
    assert set(shapes) & set(described)
    for name in set(shapes) & set(described):
        assert described[name].get("additionalProperties", True) is issubclass(shapes[name], schemas.Kept), name


def test_every_parameter_of_a_path_is_described(document: Json):
    for (_, path), operation in Document(document).operations.items():
        told = {each["name"]: each for each in operation["parameters"] if each["in"] == "path"}
        assert set(told) == set(re.findall(r"{(\w+)}", path))
        assert all(each["required"] and each["schema"]["type"] and each["description"] for each in told.values())


def test_a_parameter_is_never_null_and_has_no_title(document: Json):
    for operation in Document(document).operations.values():
        for parameter in operation["parameters"]:
            assert isinstance(parameter["schema"]["type"], str)
            assert "title" not in parameter["schema"]


def test_an_empty_filter_is_promised_only_where_it_counts_as_absent(document: Json):
    def empty(path: str, method: str) -> set[str]:
        schemas = {each["name"]: each["schema"] for each in document["paths"][path][method]["parameters"]}
        texts = {name: schema.get("items", schema) for name, schema in schemas.items()}
        return {name for name, schema in texts.items() if "" in schema.get("enum", ()) or schema == {"type": "string"}}

    assert {"state", "reason", "tag", "image"} <= empty("/runs", "get")
    assert empty("/runs/cancel", "post") == empty("/runs/retry", "post") == set()


def test_every_call_but_health_says_how_a_missing_key_is_refused(document: Json):
    for (_, path), operation in Document(document).operations.items():
        if path.startswith("/health"):
            assert operation["security"] == []
        else:
            assert {"401", "403", "422", "503"} <= set(operation["responses"])
            assert operation["security"]
    assert document["components"]["responses"]["unauthorized"]["headers"]["WWW-Authenticate"]
    assert document["components"]["responses"]["database_unavailable"]["headers"]["Retry-After"]


async def test_every_reference_leads_somewhere(document: Json):
    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set[str]()
            return own.union(*(references(each) for each in node.values()))
        return set[str]().union(*(references(each) for each in node)) if isinstance(node, list) else set()

    found = references(document)
    assert found
    components = document["components"].items()
    assert found <= {f"#/components/{kind}/{name}" for kind, each in components for name in each}
