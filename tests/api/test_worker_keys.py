"""A worker's key acts on what its worker holds, and on nothing else."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import httpx
import pytest

from .actors import Json, Worker, a_key, by, event, get, refused, submit, told

Hired = Callable[[str], Awaitable[Worker]]


@pytest.fixture
def hired(alone: httpx.AsyncClient) -> Hired:
    """A registered worker that has a key of its own, and no other."""

    async def hire(name: str) -> Worker:
        key = await a_key(alone, f"of {name}", scopes=["worker"], worker=name)
        api = httpx.AsyncClient(transport=alone._transport, base_url=alone.base_url, headers=by(key), timeout=30)
        return await Worker(api, name).registered()

    return hire


async def a_file(api: httpx.AsyncClient, content: bytes = b"bytes") -> Json:
    answer = await api.post("/files", params={"name": str(uuid4())}, content=content)
    return told(answer, 201)


async def opens(worker: Worker, file: Json) -> bool:
    answer = await worker.api.get(f"/files/{file['id']}")
    if answer.status_code != 200:
        refused(answer, 403, "forbidden")
    return answer.status_code == 200


async def test_it_suffices_for_a_whole_life(alone: httpx.AsyncClient, hired: Hired):
    one = await hired("w1")
    run = await submit(alone)
    held = await one.assignment()
    told(await one.beat(held))
    assert (await one.report(held, event("STARTED"), event("PROGRESS", 50)))["ok"]
    stored = await a_file(one.api)
    ending = event("COMPLETED", outputs={"file": {"uri": stored["uri"]}})
    assert (await one.report(held, ending, settled=True))["ok"]
    assert (await get(alone, run))["state"] == "COMPLETED"
    assert told(await one.api.get("/workers/w1"))["holding"] == []
    assert (await one.api.delete("/workers/w1")).status_code == 204


async def test_it_speaks_for_no_other_worker(alone: httpx.AsyncClient, hired: Hired):
    one, two = await hired("w1"), await hired("w2")
    mask = Worker(one.api, "w2", instance=two.instance, beats=10)
    for answer in (
        await mask.beat(),
        await mask.claim(),
        await mask.send(),
        await one.api.get("/workers/w2"),
        await one.api.delete("/workers/w2"),
        await one.api.put("/workers/W1", json={}),
        await one.api.put("/workers/w1%20", json={}),
    ):
        problem = refused(answer, 403, "forbidden")
        assert problem["detail"].startswith("The key 'of w1' speaks for worker 'w1' alone, not for '")
    told(await two.beat())


async def test_it_reports_on_no_attempt_of_another_worker_even_with_the_right_lease(
    alone: httpx.AsyncClient, hired: Hired
):
    one = await hired("w1")
    run = await submit(alone)
    held = await one.assignment()
    two = await hired("w2")
    two.seqs = one.seqs
    for stolen in (event("STARTED"), event("FAILED", reason="op_error"), event("COMPLETED")):
        assert (await two.report(held, stolen))["code"] == "lease_lost"
    assert (await two.report(held, declined=True))["code"] == "lease_lost"
    assert (await get(alone, run))["state"] == "ASSIGNED"
    assert (await one.report(held, event("STARTED")))["ok"]


async def test_nor_does_another_worker_with_a_key_that_may_do_anything(
    alone: httpx.AsyncClient, worker: Callable[..., Worker]
):
    one = await worker("w1").registered()
    await submit(alone)
    held = await one.assignment()
    two = await worker("w2").registered()
    assert (await two.report(held, event("STARTED")))["code"] == "lease_lost"


async def test_it_opens_the_files_that_its_runs_name_while_it_holds_them(alone: httpx.AsyncClient, hired: Hired):
    one, two = await hired("w1"), await hired("w2")
    await alone.post("/workers/w2/drain")
    named, deep, other = [await a_file(alone) for _ in range(3)]
    inputs = {"file": named["uri"], "more": [{"deep": {"uri": deep["uri"]}}]}
    run = await submit(alone, inputs=inputs)
    held = await one.assignment()
    assert [await opens(one, file) for file in (named, deep, other)] == [True, True, False]
    assert [await opens(two, file) for file in (named, deep)] == [False, False]
    await alone.post(f"/runs/{run['id']}/cancel")
    assert await opens(one, named), "it is stopping, and not settled yet"
    assert (await one.report(held, settled=True))["ok"]
    assert not await opens(one, named)


async def test_it_opens_the_bundle_of_what_it_runs(alone: httpx.AsyncClient, hired: Hired):
    one = await hired("w1")
    mine, old = await a_file(alone, b"new bundle"), await a_file(alone, b"old bundle")
    for file in (old, mine):
        bundle = {"uri": file["uri"], "digest": f"sha256:{file['sha256']}", "size": file["size"], "entry": ["x"]}
        told(await alone.post("/definitions", json={"id": "op", "bundle": bundle}), 201)
    assert not await opens(one, mine)
    told(await alone.post("/definitions/op/runs", json={}), 201)
    await one.assignment()
    assert [await opens(one, mine), await opens(one, old)] == [True, False]


async def test_it_does_not_learn_which_files_there_are(alone: httpx.AsyncClient, hired: Hired):
    one = await hired("w1")
    await submit(alone, inputs={"a": "a"})
    await one.assignment()
    file = await a_file(one.api)
    for file_id in (file["id"], str(uuid4()), "a", "%25", "%00"):
        refused(await one.api.get(f"/files/{file_id}"), 403, "forbidden")


async def test_a_file_that_is_named_and_gone_is_not_found(alone: httpx.AsyncClient, hired: Hired):
    one, gone = await hired("w1"), str(uuid4())
    await submit(alone, inputs={"file": f"gyoza://files/{gone}"})
    await one.assignment()
    refused(await one.api.get(f"/files/{gone}"), 404, "file_not_found")


async def test_other_keys_open_every_file(alone: httpx.AsyncClient):
    file = await a_file(alone)
    for scope in ("read", "submit", "admin"):
        key = await a_key(alone, scopes=[scope])
        assert (await alone.get(f"/files/{file['id']}", headers=by(key))).status_code == 200
