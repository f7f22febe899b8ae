"""Looking after workers: shown, drained, resumed, removed."""

import asyncio
from typing import Any

import pytest

from gyoza.control import workforce
from gyoza.control.workforce import Staff
from gyoza.models.errors import WorkerNotFound
from gyoza.models.resources import Gpu, Resources
from gyoza.store import leader

from .stage import Cluster


async def shown(cluster: Cluster, worker: str = "w1") -> Staff:
    return await workforce.one(cluster.database, worker, cluster.pace, cluster.now)


async def test_a_worker_is_shown_with_the_room_that_is_left_and_what_it_holds(cluster: Cluster):
    await cluster.beat(resources=Resources(4000, 8000, 4, (Gpu(0, "uuid", "GPU", 8000, 1000),)))
    run_id = await cluster.submit(cpu_m=1500, vram_mb=2000)
    await cluster.place()
    worker = (await shown(cluster)).to_dict()
    assert worker["room"] == {"cpu": 2.5, "ram_mb": 8000 - 256, "slots": 3, "vram_mb": {0: 5000}}
    assert worker["holding"] == [{"run_id": run_id, "attempt": 1, "state": "ASSIGNED"}]
    assert (worker["state"], worker["drain"]) == ("alive", False)


@pytest.mark.parametrize(("silent_s", "state"), [(0, "alive"), (11, "late"), (21, "lost")])
async def test_it_is_shown_how_long_it_has_been_silent(cluster: Cluster, silent_s: float, state: str):
    await cluster.beat()
    cluster.later(silent_s)
    assert (await shown(cluster)).state == state


async def test_an_evicted_worker_is_listed_as_lost(cluster: Cluster):
    await cluster.beat("w1")
    cluster.later(30)
    await cluster.beat("w2")
    await cluster.reap()
    listed = await workforce.every(cluster.database, cluster.pace, cluster.now)
    assert [(staff.worker.registration.worker_id, staff.state) for staff in listed] == [("w1", "lost"), ("w2", "alive")]


async def test_a_drained_worker_takes_nothing_new_keeps_what_runs_and_gives_back_the_rest(cluster: Cluster):
    runs, waits = await cluster.running(), await cluster.assigned()
    await workforce.drain(cluster.database, "w1", cluster.now)
    assert await cluster.state(runs.run_id) == ("RUNNING", 1)
    assert await cluster.state(waits.run_id) == ("PENDING", 2)
    assert (await cluster.run(waits.run_id)).infra_losses == 0
    await cluster.submit()
    assert await cluster.place() == 0
    assert (await cluster.beat(holding=[(runs.run_id, 1)])).drain
    assert (await cluster.look()).drain


async def test_what_a_drained_worker_gave_back_goes_to_another_one(cluster: Cluster):
    held = await cluster.assigned()
    await workforce.drain(cluster.database, "w1", cluster.now)
    await cluster.beat("w1")
    await cluster.beat("w2")
    assert await cluster.place() == 1
    assert (await cluster.handed("w2")).run_id == held.run_id


async def test_a_resumed_worker_takes_work_again(cluster: Cluster):
    await cluster.beat()
    await workforce.drain(cluster.database, "w1", cluster.now)
    await workforce.resume(cluster.database, "w1", cluster.now)
    await cluster.submit()
    assert await cluster.place() == 1
    assert not (await cluster.beat()).drain


async def test_a_drain_outlasts_a_new_process(cluster: Cluster):
    await cluster.beat()
    await workforce.drain(cluster.database, "w1", cluster.now)
    assert (await cluster.beat(instance="w1-b")).drain


async def test_a_removed_worker_is_gone_and_what_it_held_goes_on_elsewhere(cluster: Cluster):
    held = await cluster.running()
    await workforce.remove(cluster.database, "w1", cluster.now)
    with pytest.raises(WorkerNotFound):
        await shown(cluster)
    assert await workforce.every(cluster.database, cluster.pace, cluster.now) == []
    assert await cluster.state(held.run_id) == ("PENDING", 2)
    await cluster.beat("w2")
    assert await cluster.place() == 1


async def test_a_removed_worker_that_lives_registers_anew_and_is_not_drained(cluster: Cluster):
    held = await cluster.running()
    await workforce.drain(cluster.database, "w1", cluster.now)
    await workforce.remove(cluster.database, "w1", cluster.now)
    heard = await cluster.beat(holding=[(held.run_id, 1)])
    assert not heard.drain
    assert [(stop.run_id, stop.attempt) for stop in heard.stop] == [(held.run_id, 1)]
    assert (await shown(cluster)).state == "alive"


@pytest.mark.parametrize("verb", ["drain", "resume", "remove", "show"])
async def test_an_unknown_worker_is_not_found(cluster: Cluster, verb: str):
    asked = {
        "drain": lambda: workforce.drain(cluster.database, "nobody", cluster.now),
        "resume": lambda: workforce.resume(cluster.database, "nobody", cluster.now),
        "remove": lambda: workforce.remove(cluster.database, "nobody", cluster.now),
        "show": lambda: shown(cluster, "nobody"),
    }
    with pytest.raises(WorkerNotFound, match="Worker 'nobody' not found"):
        await asked[verb]()


@pytest.mark.parametrize("change", [workforce.drain, workforce.remove])
async def test_a_worker_goes_only_between_two_rounds_of_placing(cluster: Cluster, change: Any):
    """Else a round that has seen its room already would still hand it a run."""
    await cluster.beat()
    async with cluster.database.connection() as connection:
        async with connection.transaction():
            await leader.check(connection, cluster.epoch)
            going = asyncio.create_task(change(cluster.database, "w1", cluster.now))
            await asyncio.wait([going], timeout=0.2)
            assert not going.done()
        await asyncio.wait_for(going, 5)
