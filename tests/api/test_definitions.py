"""Definitions: deployed as revisions, looked up, and run with inputs that they check."""

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest
import rfc8785

from .actors import Json, pointers, refused, told
from .test_run_shape import POLICY

FIELDS = """id version image input_specs output_specs constraints retry_policy event_delivery revision digest
    description timeouts execution tags bundle concurrency delete_after_s disabled"""
BUNDLE = {
    "uri": "gyoza://files/01890a5d-ac96-774b-bcce-b302099a8057",
    "digest": "sha256:" + "0" * 64,
    "size": 10,
    "entry": ["python", "main.py"],
}


async def deploy(api: httpx.AsyncClient, id: str, status: int = 201, **content: Any) -> Json:
    return told(await api.post("/definitions", json={"id": id, "image": "alpine", **content}), status)


async def run(api: httpx.AsyncClient, name: str, inputs: Any = None, **body: Any) -> httpx.Response:
    return await api.post(f"/definitions/{name}/runs", json={"inputs": {} if inputs is None else inputs, **body})


async def listed(api: httpx.AsyncClient) -> list[tuple[str, str | None, int]]:
    return [(each["id"], each["version"], each["revision"]) for each in told(await api.get("/definitions"))]


async def test_a_definition_shows_everything_with_its_defaults(alone: httpx.AsyncClient):
    shown = await deploy(alone, "bare")
    assert set(shown) == set(FIELDS.split())
    assert (shown["id"], shown["version"], shown["image"], shown["revision"]) == ("bare", None, "alpine", 1)
    assert (shown["input_specs"], shown["output_specs"], shown["tags"]) == ({}, {}, [])
    assert shown["constraints"] == {"cpu": None, "ram_mb": None, "vram_mb": None}
    assert (shown["retry_policy"], shown["event_delivery"]) == (POLICY, None)
    assert (shown["description"], shown["bundle"], shown["concurrency"]) == (None, None, None)
    assert shown["timeouts"] == {"queue_s": None, "start_s": None, "run_s": None}
    assert shown["execution"] == {
        "env": {},
        "secrets": [],
        "network": True,
        "cancel_grace_s": 10,
        "on_server_lost": "finish",
        "server_lost_s": None,
        "user": None,
    }
    assert told(await alone.get("/definitions/bare")) == shown
    assert told(await alone.get("/definitions")) == [shown]
    assert told(await alone.get("/definitions/bare/revisions")) == [shown]


async def test_a_spec_is_required_and_without_default_unless_it_says_otherwise(api: httpx.AsyncClient):
    specs = {"x": {"type": "int"}, "y": {"type": "list", "required": False, "default": [1]}}
    shown = await deploy(api, "specs", input_specs=specs, output_specs={"z": {"type": "file"}})
    assert shown["input_specs"] == {"x": {"type": "int", "required": True, "default": None}, "y": specs["y"]}
    assert shown["output_specs"] == {"z": {"type": "file", "required": True, "default": None}}


async def test_new_content_is_a_new_revision_and_known_content_becomes_the_latest_again(api: httpx.AsyncClient):
    first = await deploy(api, "turns", image="a")
    second = await deploy(api, "turns", image="b")
    assert (first["revision"], second["revision"]) == (1, 2)
    assert told(await api.get("/definitions/turns")) == second
    assert await deploy(api, "turns", 200, image="a") == first
    assert told(await api.get("/definitions/turns")) == first
    assert [each["revision"] for each in told(await api.get("/definitions/turns/revisions"))] == [1, 2]
    assert told(await run(api, "turns"), 201)["image"] == "a"
    assert (await deploy(api, "turns", image="c"))["revision"] == 3


async def test_one_version_may_have_several_revisions(api: httpx.AsyncClient):
    old = await deploy(api, "versions", version="1", image="a")
    new = await deploy(api, "versions", version="1", image="b")
    other = await deploy(api, "versions", version="2", image="a")
    assert (old["revision"], new["revision"], other["revision"]) == (1, 2, 3)
    assert told(await api.get("/definitions/versions")) == other
    assert told(await api.get("/definitions/versions", params={"version": "1"})) == new
    assert told(await api.get("/definitions/versions", params={"version": "2"})) == other
    assert told(await run(api, "versions", version="1"), 201)["revision"] == 2
    assert told(await run(api, "versions"), 201)["version"] == "2"


async def test_the_list_holds_the_newest_revision_of_each_name_and_version(alone: httpx.AsyncClient):
    assert await listed(alone) == []
    await deploy(alone, "a", version="1", image="x")
    await deploy(alone, "a", version="1", image="y")
    await deploy(alone, "a", version="2")
    await deploy(alone, "b")
    await deploy(alone, "b", image="z")
    assert sorted(await listed(alone), key=str) == [("a", "1", 2), ("a", "2", 3), ("b", None, 2)]
    await deploy(alone, "a", 200, version="1", image="x")
    assert ("a", "1", 1) in await listed(alone)


async def test_an_unknown_definition_is_not_found(api: httpx.AsyncClient):
    await deploy(api, "known", version="1")
    for path in ("/definitions/nobody", "/definitions/nobody/revisions", "/definitions/known?version=2"):
        refused(await api.get(path), 404, "definition_not_found")
    refused(await run(api, "nobody"), 404, "definition_not_found")
    refused(await run(api, "known", version="2"), 404, "definition_not_found")


async def test_the_digest_is_that_of_the_canonical_json(api: httpx.AsyncClient):
    specs = {"b": {"type": "float", "default": 1e21, "required": False}, "a€": {"type": "any", "default": "\u20ac\n"}}
    shown = await deploy(
        api, "digest", version="1", input_specs=specs, constraints={"cpu": 1.5}, timeouts={"run_s": 60}
    )
    content = {name: value for name, value in shown.items() if name not in ("revision", "digest", "disabled")}
    assert shown["digest"].removeprefix("sha256:") == hashlib.sha256(rfc8785.dumps(content)).hexdigest()


async def test_the_digest_does_not_depend_on_the_order_of_keys_nor_on_defaults_left_out(api: httpx.AsyncClient):
    content = {
        "id": "order",
        "image": "alpine",
        "version": "1",
        "input_specs": {"x": {"type": "any", "default": {"p": 1, "q": [2]}}, "y": {"type": "int"}},
        "event_delivery": {"topic": "t", "attributes": {"m": 1, "n": 2}},
    }
    first = told(await api.post("/definitions", json=content), 201)
    shuffled = json.dumps(content, sort_keys=True)
    assert shuffled != json.dumps(content)
    assert told(await api.post("/definitions", content=shuffled.encode())) == first
    filled = {**content, "constraints": {}, "tags": [], "retry_policy": {"max_attempts": 1}, "description": None}
    assert told(await api.post("/definitions", json=filled)) == first


async def test_what_get_answers_can_be_deployed_again(api: httpx.AsyncClient):
    shown = await deploy(api, "round", version="1", input_specs={"x": {"type": "int"}}, timeouts={"start_s": 5})
    assert told(await api.post("/definitions", json=shown)) == shown


async def test_unknown_members_of_a_definition_are_passed_over(api: httpx.AsyncClient):
    shown = await deploy(api, "loose", colour="red", input_specs={"x": {"type": "int", "unit": "m"}})
    assert set(shown) == set(FIELDS.split())
    assert set(shown["input_specs"]["x"]) == {"type", "required", "default"}


async def test_the_same_definition_deployed_at_once_is_one_revision(api: httpx.AsyncClient):
    body = {"id": "at-once", "image": "alpine"}
    answers = await asyncio.gather(*(api.post("/definitions", json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len(told(await api.get("/definitions/at-once/revisions"))) == 1
    answers = await asyncio.gather(*(api.post("/definitions", json={**body, "image": f"a:{n}"}) for n in range(8)))
    assert sorted(told(answer, 201)["revision"] for answer in answers) == list(range(2, 10))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"id": "x"}, ""),
        ({"id": "x", "image": None, "bundle": None}, ""),
        ({"image": "a"}, "/id"),
        ({"id": "", "image": "a"}, "/id"),
        ({"id": "a/b", "image": "a"}, "/id"),
        ({"id": "a\n", "image": "a"}, "/id"),
        ({"id": "a" * 201, "image": "a"}, "/id"),
        ({"id": 5, "image": "a"}, "/id"),
        ({"id": "x", "image": 5}, "/image"),
        ({"id": "x", "image": "a", "version": 1}, "/version"),
        ({"id": "x", "image": "a", "input_specs": []}, "/input_specs"),
        ({"id": "x", "image": "a", "input_specs": {"x": {}}}, "/input_specs/x/type"),
        ({"id": "x", "image": "a", "input_specs": {"x": {"type": "number"}}}, "/input_specs/x/type"),
        ({"id": "x", "image": "a", "input_specs": {"x": {"type": "int", "default": 1.0}}}, "/input_specs/x"),
        ({"id": "x", "image": "a", "input_specs": {"x": {"type": "int", "required": 1}}}, "/input_specs/x/required"),
        ({"id": "x", "image": "a", "output_specs": {"x": {"type": "text"}}}, "/output_specs/x/type"),
        ({"id": "x", "image": "a", "timeouts": {"run_s": 0}}, "/timeouts/run_s"),
        ({"id": "x", "image": "a", "timeouts": {"colour": 1}}, "/timeouts/colour"),
        ({"id": "x", "image": "a", "execution": {"network": "no"}}, "/execution/network"),
        ({"id": "x", "image": "a", "execution": {"on_server_lost": "panic"}}, "/execution/on_server_lost"),
        ({"id": "x", "image": "a", "execution": {"server_lost_s": 0}}, "/execution/server_lost_s"),
        ({"id": "x", "image": "a", "execution": {"server_lost_s": 7 * 86400 + 1}}, "/execution/server_lost_s"),
        ({"id": "x", "image": "a", "execution": {"secrets": ["../key"]}}, "/execution/secrets/0"),
        ({"id": "x", "image": "a", "execution": {"user": "me:you:them"}}, "/execution/user"),
        ({"id": "x", "image": "a", "tags": "gpu"}, "/tags"),
        ({"id": "x", "bundle": {**BUNDLE, "uri": "https://example.org/x"}}, "/bundle/uri"),
        ({"id": "x", "bundle": {**BUNDLE, "digest": "sha256:beef"}}, "/bundle/digest"),
        ({"id": "x", "bundle": {**BUNDLE, "entry": []}}, "/bundle/entry"),
    ],
)
async def test_a_misshapen_definition_is_refused(api: httpx.AsyncClient, content: Any, place: str):
    assert pointers(await api.post("/definitions", json=content)) == {place}
    refused(await api.get("/definitions/x"), 404)


async def test_an_op_needs_no_image_when_it_has_a_bundle(api: httpx.AsyncClient):
    shown = told(await api.post("/definitions", json={"id": "bundled", "bundle": BUNDLE}), 201)
    assert (shown["image"], shown["bundle"]) == (None, {**BUNDLE, "python": None, "base_image": None})
    assert told(await run(api, "bundled"), 201)["image"] is None


async def test_a_run_inherits_from_its_definition(api: httpx.AsyncClient):
    delivery = {"topic": "t", "attributes": {"z": 1, "a": 2}}
    shown = await deploy(
        api,
        "heir",
        version="3",
        image="heir:3",
        constraints={"cpu": 0.5, "ram_mb": 64, "vram_mb": 7},
        retry_policy={"max_attempts": 4},
        event_delivery=delivery,
        timeouts={"run_s": 60},
        tags=["a", "b"],
    )
    made = told(await run(api, "heir", priority=9), 201)
    assert made == told(await api.get(f"/runs/{made['id']}"))
    assert (made["op_definition"], made["version"], made["revision"]) == ("heir", "3", shown["revision"])
    for name in ("image", "constraints", "retry_policy", "event_delivery", "timeouts", "tags"):
        assert made[name] == shown[name]
    assert (made["priority"], made["state"], made["inputs"]) == (9, "PENDING", {})
    assert told(await run(api, "heir"), 201)["priority"] == 5


async def test_a_run_stays_pinned_to_its_revision(api: httpx.AsyncClient):
    await deploy(api, "pinned", image="old", constraints={"cpu": 1})
    made = told(await run(api, "pinned"), 201)
    await deploy(api, "pinned", image="new", constraints={"cpu": 2})
    assert told(await api.get(f"/runs/{made['id']}")) == made
    assert (made["image"], made["revision"]) == ("old", 1)
    await api.post(f"/runs/{made['id']}/cancel")
    retried = told(await api.post(f"/runs/{made['id']}/retry"))
    assert (retried["image"], retried["revision"], retried["constraints"]["cpu"]) == ("old", 1, 1)


SPECS = {
    "s": {"type": "string"},
    "i": {"type": "int", "required": False},
    "f": {"type": "float", "required": False, "default": 0.5},
    "b": {"type": "bool", "required": False},
    "l": {"type": "list", "required": False, "default": [1, 2]},
    "d": {"type": "dict", "required": False},
    "x": {"type": "any", "required": False},
    "u": {"type": "file", "required": False},
    "r": {"type": "int", "default": 3},
}


@pytest.fixture(scope="module")
async def checks(api: httpx.AsyncClient) -> str:
    return (await deploy(api, "checks", input_specs=SPECS))["id"]


async def test_defaults_are_filled_in_and_what_is_optional_stays_absent(api: httpx.AsyncClient, checks: str):
    filled = {"f": 0.5, "l": [1, 2], "r": 3}
    assert told(await run(api, checks, {"s": "x"}), 201)["inputs"] == {"s": "x", **filled}
    nulls = {"s": "x", "i": None, "f": None, "l": None, "r": None, "d": None}
    assert told(await run(api, checks, nulls), 201)["inputs"] == {"s": "x", **filled}
    given = {"s": "", "f": 1, "l": [], "r": 0, "b": False, "d": {}, "i": -1}
    assert told(await run(api, checks, given), 201)["inputs"] == given


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("s", ["", "text"], [1, True, [], {}]),
        ("i", [0, -5, 2**63 - 1], [True, 1.0, 1.5, "1", []]),
        ("f", [0, 1, 1.5, -2e300], [True, "1.5", []]),
        ("b", [True, False], [0, 1, "true", []]),
        ("l", [[], [1, "a", None]], [{}, "[]", 1]),
        ("d", [{}, {"a": {"b": []}}], [[], "{}", 1]),
        ("x", [1, "a", True, [], {}, 1.5], []),
        ("u", ["gyoza://files/1", "https://example.org/a.jpg", "s3://b/k", "file:///a"], [1, "", "a.jpg", "/a", {}]),
    ],
)
async def test_each_type_takes_its_own_values(
    api: httpx.AsyncClient, checks: str, name: str, good: list[Any], bad: list[Any]
):
    for value in good:
        assert told(await run(api, checks, {"s": "x", name: value}), 201)["inputs"][name] == value
    for value in bad:
        problem = refused(await run(api, checks, {"s": "x", name: value}), 400, "invalid_inputs")
        assert f"'{name}'" in problem["detail"]


async def test_every_fault_of_the_inputs_is_named(api: httpx.AsyncClient, checks: str):
    wrong = {"i": True, "f": "1", "b": 0, "l": {}, "d": [], "u": "a.jpg", "r": 1.0, "unknown": 1, "s": None}
    problem = refused(await run(api, checks, wrong), 400, "invalid_inputs")
    for name in ("s", "i", "f", "b", "l", "d", "u", "r", "unknown"):
        assert f"'{name}'" in problem["detail"]
    assert "'x'" not in problem["detail"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"inputs": []}, "/inputs"),
        ({"inputs": "x"}, "/inputs"),
        ({"priority": 1001}, "/priority"),
        ({"priority": "1"}, "/priority"),
        ({"version": 1}, "/version"),
    ],
)
async def test_a_misshapen_order_of_a_run_is_refused(api: httpx.AsyncClient, checks: str, body: Any, place: str):
    assert pointers(await api.post(f"/definitions/{checks}/runs", json=body)) == {place}


async def test_inputs_may_be_left_out(api: httpx.AsyncClient):
    await deploy(api, "nothing")
    assert told(await api.post("/definitions/nothing/runs", json={"colour": "red"}), 201)["inputs"] == {}
    refused(await run(api, "nothing", {"x": 1}), 400, "invalid_inputs")
    assert told(await run(api, "nothing", {"x": None}), 201)["inputs"] == {}


async def test_a_disabled_definition_takes_no_runs_until_it_is_enabled(api: httpx.AsyncClient):
    before = await deploy(api, "paused", version="1")
    old = told(await run(api, "paused"), 201)
    assert told(await api.post("/definitions/paused/disable")) == {**before, "disabled": True}
    for body in ({}, {"version": "1"}):
        assert "'paused'" in refused(await run(api, "paused", **body), 409, "definition_disabled")["detail"]
    refused(await api.post(f"/runs/{old['id']}/replay"), 409, "definition_disabled")
    assert told(await api.get("/definitions/paused"))["disabled"] is True
    assert [each["disabled"] for each in told(await api.get("/definitions/paused/revisions"))] == [True]
    assert told(await api.post("/definitions/paused/disable"))["disabled"] is True
    assert told(await api.post("/definitions/paused/enable")) == before
    told(await run(api, "paused"), 201)


async def test_a_definition_stays_disabled_when_it_is_deployed_again(api: httpx.AsyncClient):
    await deploy(api, "stays", image="a")
    told(await api.post("/definitions/stays/disable"))
    assert (await deploy(api, "stays", image="b"))["disabled"] is True
    assert (await deploy(api, "stays", 200, image="a"))["disabled"] is True
    refused(await run(api, "stays"), 409, "definition_disabled")


async def test_a_deleted_definition_is_in_no_list_and_takes_no_runs(alone: httpx.AsyncClient):
    await deploy(alone, "gone", version="1")
    await deploy(alone, "gone", version="2")
    await deploy(alone, "stays")
    assert (await alone.delete("/definitions/gone")).status_code == 204
    assert await listed(alone) == [("stays", None, 1)]
    for path in ("/definitions/gone", "/definitions/gone/revisions", "/definitions/gone?version=1"):
        refused(await alone.get(path), 404, "definition_not_found")
    for body in ({}, {"version": "1"}):
        refused(await run(alone, "gone", **body), 404, "definition_not_found")
    for change in (alone.post("/definitions/gone/disable"), alone.post("/definitions/gone/enable")):
        refused(await change, 404, "definition_not_found")
    refused(await alone.delete("/definitions/gone"), 404, "definition_not_found")


async def test_the_runs_of_a_deleted_definition_stay_readable_and_can_be_retried(api: httpx.AsyncClient):
    await deploy(api, "history", version="7")
    runs = [told(await run(api, "history"), 201) for _ in range(2)]
    told(await api.post(f"/runs/{runs[0]['id']}/cancel"))
    assert (await api.delete("/definitions/history")).status_code == 204
    found = told(await api.get("/runs", params={"op_definition": "history"}))["data"]
    assert [(each["id"], each["version"], each["revision"]) for each in found] == [
        (each["id"], "7", 1) for each in reversed(runs)
    ]
    assert told(await api.post(f"/runs/{runs[0]['id']}/retry"))["state"] == "PENDING"
    assert len(told(await api.get(f"/runs/{runs[0]['id']}/attempts"))) == 2
    refused(await api.post(f"/runs/{runs[0]['id']}/replay"), 404, "definition_not_found")


async def test_a_deleted_definition_is_back_when_it_is_deployed_and_its_revisions_count_on(api: httpx.AsyncClient):
    await deploy(api, "back", version="1", image="a")
    await deploy(api, "back", version="1", image="b")
    told(await api.post("/definitions/back/disable"))
    assert (await api.delete("/definitions/back")).status_code == 204
    again = await deploy(api, "back", version="2", image="c")
    assert (again["revision"], again["disabled"]) == (3, False)
    assert sorted(each for each in await listed(api) if each[0] == "back") == [("back", "1", 2), ("back", "2", 3)]
    assert told(await run(api, "back"), 201)["revision"] == 3
    assert (await api.delete("/definitions/back")).status_code == 204
    assert (await deploy(api, "back", 200, version="1", image="a"))["revision"] == 1
    assert [each["revision"] for each in told(await api.get("/definitions/back/revisions"))] == [1, 3, 2]


async def test_the_runs_of_a_definition_are_kept_for_as_long_as_it_says(api: httpx.AsyncClient):
    shown = await deploy(api, "short", delete_after_s=60)
    assert shown["delete_after_s"] == 60
    assert told(await run(api, "short"), 201)["delete_after_s"] == 60
    assert told(await run(api, "short", delete_after_s=0), 201)["delete_after_s"] == 0
    assert told(await run(api, "short", delete_after_s=None), 201)["delete_after_s"] == 60
