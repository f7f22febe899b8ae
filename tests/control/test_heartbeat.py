"""What a worker says that it holds, against what the server believes."""

import pytest

from gyoza.models.errors import Superseded, WorkerNameTaken
from gyoza.models.resources import Resources

from .stage import STARTED, Cluster


async def acknowledged(cluster: Cluster, run_id: str) -> bool:
    return await cluster.ask("SELECT acknowledged_at IS NOT NULL FROM attempts WHERE run_id = %s", run_id) == [(True,)]


async def test_a_worker_is_known_by_its_first_heartbeat(cluster: Cluster):
    heard = await cluster.beat(resources=Resources(1000, 500, 2))
    assert (heard.drain, list(heard.stop)) == (False, [])
    assert await cluster.ask("SELECT id, instance, seen_at FROM workers") == [("w1", "w1-a", cluster.now)]


async def test_what_it_has_may_change_with_every_heartbeat(cluster: Cluster):
    await cluster.beat(resources=Resources(1000, 500, 2))
    await cluster.submit(cpu_m=3000)
    assert await cluster.place() == 0
    await cluster.beat(resources=Resources(4000, 500, 2))
    assert await cluster.place() == 1


async def test_an_older_heartbeat_that_was_overtaken_changes_nothing(cluster: Cluster):
    await cluster.beat(resources=Resources(4000, 500, 2))
    cluster.later(1)
    cluster.spoken["w1"] -= 1
    await cluster.beat(resources=Resources(1000, 500, 2))
    assert await cluster.ask("SELECT resources->'cpu' #>> '{}', seen_at < %s FROM workers", cluster.now) == [
        ("4", True)
    ]


async def test_an_older_heartbeat_that_comes_after_an_eviction_registers_nobody(cluster: Cluster):
    """What it says it holds is out of date: what was handed over since would be lost, and still run."""
    held = await cluster.running()
    await cluster.beat(holding=[(held.run_id, 1)])
    cluster.later(100)
    await cluster.reap()
    cluster.spoken["w1"] -= 1
    await cluster.beat()
    assert await cluster.ask("SELECT evicted_at IS NULL FROM workers") == [(False,)]
    await cluster.beat()
    assert await cluster.ask("SELECT evicted_at IS NULL FROM workers") == [(True,)]


async def test_holding_an_assignment_acknowledges_it(cluster: Cluster):
    held = await cluster.assigned()
    assert not await acknowledged(cluster, held.run_id)
    await cluster.beat(holding=[(held.run_id, 1)])
    assert await acknowledged(cluster, held.run_id)
    assert await cluster.story(held.run_id) == ["ASSIGNED 1"]


async def test_what_was_acknowledged_before_the_last_heartbeat_and_is_not_held_is_lost(cluster: Cluster):
    held = await cluster.running()
    cluster.later(1)
    await cluster.beat(holding=[(held.run_id, 1)])
    await cluster.beat()
    run = await cluster.run(held.run_id)
    assert (run.state, run.current_attempt, run.infra_losses) == ("PENDING", 2, 1)
    assert await cluster.slots_taken() == 0


async def test_what_was_acknowledged_since_the_last_heartbeat_is_left_for_the_next(cluster: Cluster):
    """This heartbeat may have been written before the worker took it up."""
    held = await cluster.assigned()
    cluster.later(1)
    await cluster.tell(held, 1, STARTED)
    await cluster.beat()
    assert await cluster.state(held.run_id) == ("RUNNING", 1)
    await cluster.beat()
    assert await cluster.state(held.run_id) == ("PENDING", 2)


async def test_an_assignment_that_it_has_not_taken_up_yet_stays_its_own(cluster: Cluster):
    held = await cluster.assigned()
    for _ in range(3):
        cluster.later(1)
        await cluster.beat()
    assert await cluster.state(held.run_id) == ("ASSIGNED", 1)
    assert await cluster.slots_taken() == 1


async def test_an_assignment_that_was_cancelled_before_it_was_taken_up_is_settled_by_not_holding_it(cluster: Cluster):
    held = await cluster.assigned()
    await cluster.cancel(held.run_id)
    assert await cluster.slots_taken() == 1
    await cluster.beat()
    assert await cluster.slots_taken() == 0


async def test_it_is_told_what_to_stop_and_that_is_settled_when_it_no_longer_holds_it(cluster: Cluster):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    heard = await cluster.beat(holding=[(held.run_id, 1)])
    assert [stop.to_dict() for stop in heard.stop] == [{"run_id": held.run_id, "attempt": 1, "reason": "cancelled"}]
    assert await cluster.slots_taken() == 1
    cluster.later(1)
    await cluster.beat()
    assert await cluster.slots_taken() == 0


async def test_what_it_holds_and_is_not_its_own_it_is_told_to_stop(cluster: Cluster):
    """Be it another's, or deleted with its run: nobody else would ever end it."""
    held = await cluster.running("w1")
    heard = await cluster.beat("w2", holding=[(held.run_id, 1), ("no run", 3)])
    assert [(each.run_id, each.attempt) for each in heard.stop] == [(held.run_id, 1), ("no run", 3)]
    assert await cluster.state(held.run_id) == ("RUNNING", 1)


async def test_a_new_process_on_the_same_host_takes_over_and_what_the_old_one_ran_is_lost(cluster: Cluster):
    held = await cluster.running()
    await cluster.beat(instance="w1-b")
    assert await cluster.state(held.run_id) == ("PENDING", 2)
    with pytest.raises(Superseded):
        await cluster.beat(instance="w1-a")
    await cluster.beat(instance="w1-b")


async def test_a_new_process_inherits_what_the_old_one_had_not_taken_up(cluster: Cluster):
    held = await cluster.assigned()
    await cluster.beat(instance="w1-b")
    assert await cluster.state(held.run_id) == ("ASSIGNED", 1)
    assert (await cluster.look(instance="w1-b")).assignments == [held]


async def test_a_name_that_lives_on_another_host_is_taken(cluster: Cluster):
    await cluster.beat()
    cluster.later(20)
    with pytest.raises(WorkerNameTaken):
        await cluster.beat(instance="w1-b", host_id="host-2")
    cluster.later(1)
    await cluster.beat(instance="w1-b", host_id="host-2")
    with pytest.raises(Superseded):
        await cluster.beat()


async def test_many_take_overs_are_remembered_and_none_without_end(cluster: Cluster):
    for n in range(30):
        await cluster.beat(instance=f"i{n}")
    with pytest.raises(Superseded):
        await cluster.beat(instance="i20")
    assert await cluster.ask("SELECT cardinality(former) FROM workers") == [(20,)]
