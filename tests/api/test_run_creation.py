"""POST /runs: what is taken, what is refused, and the place that a refusal names."""

from typing import Any

import httpx
import pytest

from .actors import pointers, submit, told
from .test_run_shape import POLICY


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/image"),
        ({"image": None}, "/image"),
        ({"image": 5}, "/image"),
        ({"image": ""}, "/image"),
        ({"image": "a", "priority": "5"}, "/priority"),
        ({"image": "a", "priority": 5.0}, "/priority"),
        ({"image": "a", "priority": True}, "/priority"),
        ({"image": "a", "priority": 1001}, "/priority"),
        ({"image": "a", "priority": -1001}, "/priority"),
        ({"image": "a", "inputs": []}, "/inputs"),
        ({"image": "a", "inputs": "{}"}, "/inputs"),
        ({"image": "a", "constraints": 5}, "/constraints"),
        ({"image": "a", "constraints": {"cpu": -1}}, "/constraints/cpu"),
        ({"image": "a", "constraints": {"cpu": "1"}}, "/constraints/cpu"),
        ({"image": "a", "constraints": {"cpu": True}}, "/constraints/cpu"),
        ({"image": "a", "constraints": {"cpu": 0.0001}}, "/constraints/cpu"),
        ({"image": "a", "constraints": {"cpu": 1e-10}}, "/constraints/cpu"),
        ({"image": "a", "constraints": {"cpu": 1e300}}, "/constraints/cpu"),
        ({"image": "a", "constraints": {"ram_mb": 1.5}}, "/constraints/ram_mb"),
        ({"image": "a", "constraints": {"ram_mb": -1}}, "/constraints/ram_mb"),
        ({"image": "a", "constraints": {"ram_mb": 2**31}}, "/constraints/ram_mb"),
        ({"image": "a", "constraints": {"vram_mb": "8"}}, "/constraints/vram_mb"),
        ({"image": "a", "retry_policy": {"max_attempts": 0}}, "/retry_policy/max_attempts"),
        ({"image": "a", "retry_policy": {"max_attempts": 2.5}}, "/retry_policy/max_attempts"),
        ({"image": "a", "event_delivery": {}}, "/event_delivery/topic"),
        ({"image": "a", "event_delivery": {"topic": 1}}, "/event_delivery/topic"),
        ({"image": "a", "event_delivery": {"topic": "t", "attributes": []}}, "/event_delivery/attributes"),
    ],
)
async def test_a_misshapen_body_is_refused_by_the_place_of_its_fault(api: httpx.AsyncClient, body: Any, place: str):
    assert pointers(await api.post("/runs", json=body)) == {place}


async def test_every_fault_is_named_at_once(api: httpx.AsyncClient):
    answer = await api.post("/runs", json={"priority": "high", "inputs": 5, "constraints": {"cpu": "two"}})
    assert pointers(answer) == {"/image", "/priority", "/inputs", "/constraints/cpu"}


async def test_what_is_optional_may_be_null(api: httpx.AsyncClient):
    bare = await submit(api)
    nulls = await submit(api, constraints=None, retry_policy=None, event_delivery=None)
    for name in ("constraints", "retry_policy", "event_delivery"):
        assert nulls[name] == bare[name]
    assert (await submit(api, constraints={"cpu": None, "ram_mb": 7}))["constraints"]["ram_mb"] == 7


async def test_attributes_of_event_delivery_may_be_left_out(api: httpx.AsyncClient):
    run = await submit(api, event_delivery={"topic": "images"})
    assert run["event_delivery"] == {"topic": "images", "attributes": {}}


async def test_unknown_members_are_passed_over(api: httpx.AsyncClient):
    constraints, delivery = {"cpu": 1, "colour": "red"}, {"topic": "t", "more": 1}
    policy = {"max_attempts": 2, "mood": 1}
    run = await submit(api, colour="red", constraints=constraints, retry_policy=policy, event_delivery=delivery)
    assert run["constraints"] == {"cpu": 1, "ram_mb": None, "vram_mb": None}
    assert run["retry_policy"] == {**POLICY, "max_attempts": 2}
    assert run["event_delivery"] == {"topic": "t", "attributes": {}}
    assert "colour" not in run


@pytest.mark.parametrize("priority", [-1000, 0, 1000])
async def test_priorities_reach_from_minus_to_plus_a_thousand(api: httpx.AsyncClient, priority: int):
    assert (await submit(api, priority=priority))["priority"] == priority


async def test_a_replay_may_have_a_time_of_its_own(api: httpx.AsyncClient):
    run, later = await submit(api), "2100-01-01T00:00:00.000000+00:00"
    again = told(await api.post(f"/runs/{run['id']}/replay", json={"run_at": later}), 201)
    assert (again["run_at"], again["replay_of"], again["id"] != run["id"]) == (later, run["id"], True)
    assert told(await api.post(f"/runs/{again['id']}/replay"), 201)["run_at"] is None
