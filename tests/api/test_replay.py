"""POST /runs/{id}/replay: once more what was asked for before, as a new run."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from .actors import Json, a_key, by, get, history, in_state, pointers, refused, say, submit, told
from .test_json import ODD
from .test_run_shape import POLICY

OWN = {"id", "created_at", "updated_at", "queue_at", "replay_of"}
"""What a replay of a run that is still new has for itself."""


async def replay(api: httpx.AsyncClient, run: Json, **changed: Any) -> Json:
    new = told(await api.post(f"/runs/{run['id']}/replay", json=changed), 201)
    assert await get(api, new) == new
    return new


def without(run: Json, *names: str) -> Json:
    return {name: value for name, value in run.items() if name not in {*OWN, *names}}


FULL: Json = {
    "inputs": {"x": 1},
    "priority": -7,
    "constraints": {"cpu": 0.5, "ram_mb": 3, "vram_mb": None},
    "event_delivery": {"topic": "t", "attributes": {"b": 1, "a": 2}},
    "tags": ["b", "a"],
    "timeouts": {"queue_s": 5, "run_s": 60},
    "retry_policy": {"max_attempts": 4, "backoff_s": 1.5, "retry_on": ["op_error"], "fail_on": ["worker_lost"]},
    "delete_after_s": 60,
}


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"])
async def test_a_run_in_any_state_is_replayed_as_a_new_one(api: httpx.AsyncClient, state: str):
    asked = await submit(api, "alpine:3", **{**FULL, "retry_policy": {**FULL["retry_policy"], "max_attempts": 1}})
    for type in {"RUNNING": ["STARTED"], "COMPLETED": ["STARTED", "COMPLETED"], "FAILED": ["STARTED", "FAILED"]}.get(
        state, ["CANCELLED"] * (state == "CANCELLED")
    ):
        told(await say(api, asked, type))
    before = await get(api, asked)
    assert before["state"] == state
    new = await replay(api, asked)
    assert without(new) == without(asked)
    assert new["id"] != asked["id"] and new["replay_of"] == asked["id"]
    assert new["created_at"] > asked["created_at"]
    assert (new["state"], new["current_attempt"], new["events"], new["events_count"]) == ("PENDING", 1, [], 0)
    assert await get(api, asked) == before
    assert await history(api, new) == []


async def test_without_a_body_nothing_differs(api: httpx.AsyncClient):
    asked = await submit(api, **FULL)
    for content in (b"", b"{}"):
        new = told(await api.post(f"/runs/{asked['id']}/replay", content=content), 201)
        assert without(new) == without(asked)


async def test_inputs_are_those_that_were_received(api: httpx.AsyncClient):
    asked = told(await api.post("/runs", content=f'{{"image": "a", "inputs": {ODD}}}'.encode()), 201)
    answer = await api.post(f"/runs/{asked['id']}/replay")
    assert f'"inputs":{ODD}' in answer.text
    assert f'"inputs":{ODD}' in (await api.get(f"/runs/{told(answer, 201)['id']}")).text


async def test_what_became_of_a_run_is_not_replayed(api: httpx.AsyncClient):
    asked = await in_state(api, "RUNNING", retry_policy={"max_attempts": 2, "backoff_s": 3600})
    told(await say(api, asked, "FAILED"))
    told(await api.patch(f"/runs/{asked['id']}", json={"outputs": {"x": 1}, "pinned": True}))
    now = await get(api, asked)
    assert (now["current_attempt"], now["user_failures"]) == (2, 1)
    assert now["run_at"] is not None
    new = await replay(api, asked)
    assert (new["current_attempt"], new["user_failures"], new["run_at"], new["outputs"]) == (1, 0, None, None)
    assert new["pinned"] is False


async def test_a_run_that_was_delayed_is_replayed_at_once(api: httpx.AsyncClient):
    asked = await submit(api, run_at="2030-01-01T00:00:00+00:00", priority=0)
    new = await replay(api, asked)
    assert (new["run_at"], new["queue_at"]) == (None, new["created_at"])


@pytest.mark.parametrize(
    ("changed", "then"),
    [
        ({"priority": 9}, {"priority": 9}),
        ({"tags": ["c", "c", "d"]}, {"tags": ["c", "d"]}),
        ({"tags": []}, {"tags": []}),
        ({"run_at": "2030-01-01T00:00:00+02:00"}, {"run_at": "2029-12-31T22:00:00.000000+00:00"}),
        ({"run_at": None}, {"run_at": None}),
        ({"delete_after_s": 5}, {"delete_after_s": 5}),
        ({"delete_after_s": None}, {"delete_after_s": None}),
        ({"timeouts": {"run_s": 9}}, {"timeouts": {"queue_s": 5, "start_s": None, "run_s": 9}}),
        ({"timeouts": {"run_s": None}}, {"timeouts": {"queue_s": 5, "start_s": None, "run_s": None}}),
        ({"timeouts": None}, {"timeouts": {"queue_s": 5, "start_s": None, "run_s": 60}}),
        (
            {"retry_policy": {"max_attempts": 2, "retry_on": None}},
            {"retry_policy": {**POLICY, **FULL["retry_policy"], "max_attempts": 2, "retry_on": None}},
        ),
        (
            {"retry_policy": {"jitter": 0.5, "fail_on": []}},
            {"retry_policy": {**POLICY, **FULL["retry_policy"], "jitter": 0.5, "fail_on": []}},
        ),
        ({"retry_policy": {}}, {"retry_policy": {**POLICY, **FULL["retry_policy"]}}),
        (
            {"priority": 1, "tags": ["z"], "run_at": "2030-01-01T00:00:00Z", "timeouts": {"start_s": 3}},
            {
                "priority": 1,
                "tags": ["z"],
                "run_at": "2030-01-01T00:00:00.000000+00:00",
                "timeouts": {"queue_s": 5, "start_s": 3, "run_s": 60},
            },
        ),
    ],
)
async def test_options_that_are_given_differ_member_by_member(api: httpx.AsyncClient, changed: Json, then: Json):
    asked = await submit(api, **FULL)
    new = await replay(api, asked, **changed)
    assert {name: new[name] for name in then} == then
    assert without(new, *then) == without(asked, *then)


async def test_tags_of_a_replay_are_found_and_those_it_left_are_not(api: httpx.AsyncClient):
    asked = await submit(api, tags=["left"])
    new = await replay(api, asked, tags=["taken"])
    found = {tag: told(await api.get("/runs", params={"tag": tag}))["data"] for tag in ("left", "taken")}
    assert {tag: [run["id"] for run in runs] for tag, runs in found.items()} == {
        "left": [asked["id"]],
        "taken": [new["id"]],
    }


async def test_a_run_of_a_definition_is_replayed_at_its_own_revision(api: httpx.AsyncClient):
    spec = {"x": {"type": "int", "required": False, "default": 3}}
    old = {
        "id": "again",
        "version": "1",
        "image": "old",
        "input_specs": spec,
        "tags": ["op"],
        "constraints": {"cpu": 2},
    }
    told(await api.post("/definitions", json={**old, "timeouts": {"run_s": 5}}), 201)
    asked = told(await api.post("/definitions/again/runs", json={"tags": ["own"]}), 201)
    told(await api.post("/definitions", json={"id": "again", "version": "2", "image": "new"}), 201)
    new = await replay(api, asked, priority=6)
    assert without(new, "priority") == without(asked, "priority")
    assert (new["image"], new["version"], new["revision"]) == ("old", "1", 1)
    assert (new["inputs"], new["tags"], new["timeouts"]["run_s"]) == ({"x": 3}, ["op", "own"], 5)


async def test_a_definition_that_takes_no_runs_takes_no_replays(api: httpx.AsyncClient):
    body = {"id": "fading", "image": "a"}
    told(await api.post("/definitions", json=body), 201)
    asked = told(await api.post("/definitions/fading/runs", json={}), 201)
    path = f"/runs/{asked['id']}/replay"
    told(await api.post("/definitions/fading/disable"))
    refused(await api.post(path), 409, "definition_disabled")
    told(await api.post("/definitions/fading/enable"))
    told(await api.post(path), 201)
    assert (await api.delete("/definitions/fading")).status_code == 204
    refused(await api.post(path), 404, "definition_not_found")
    told(await api.post("/definitions", json=body), 200)
    told(await api.post(path), 201)


async def test_a_replay_is_whose_who_asks_for_it(api: httpx.AsyncClient):
    asked, other = await submit(api), await a_key(api, "somebody-else")
    new = told(await api.post(f"/runs/{asked['id']}/replay", headers=by(other)), 201)
    assert (new["submitted_by"], asked["submitted_by"]) == ("somebody-else", "bootstrap")


async def test_a_replay_is_replayed(api: httpx.AsyncClient):
    asked = await submit(api, **FULL)
    again = await replay(api, await replay(api, asked, priority=1))
    assert again["priority"] == 1 and without(again, "priority") == without(asked, "priority")
    assert again["replay_of"] not in (None, asked["id"])


@pytest.mark.parametrize("run_id", [str(uuid4()), "no-such-run", "%00"])
async def test_an_unknown_run_is_not_found(api: httpx.AsyncClient, run_id: str):
    detail = refused(await api.post(f"/runs/{run_id}/replay"), 404, "run_not_found")["detail"]
    assert detail == f"OpRun '{run_id.replace('%00', chr(0))}' not found"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"image": "b"}, "/image"),
        ({"inputs": {}}, "/inputs"),
        ({"colour": "red"}, "/colour"),
        ({"priority": None}, "/priority"),
        ({"tags": None}, "/tags"),
        ({"tags": [5]}, "/tags/0"),
        ({"timeouts": {"colour": 1}}, "/timeouts/colour"),
        ({"retry_policy": {"max_attempts": 0}}, "/retry_policy/max_attempts"),
        ([], ""),
    ],
)
async def test_a_misshapen_replay_is_refused(api: httpx.AsyncClient, body: Any, place: str):
    asked = await submit(api)
    assert pointers(await api.post(f"/runs/{asked['id']}/replay", json=body)) == {place}


async def test_a_replay_enters_the_queue_when_it_is_asked_for(api: httpx.AsyncClient):
    asked = await submit(api, priority=0)
    new = await replay(api, asked)
    assert datetime.fromisoformat(new["queue_at"]) == datetime.fromisoformat(new["created_at"])
    assert new["queue_at"] > asked["queue_at"]
