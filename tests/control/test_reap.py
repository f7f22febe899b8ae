"""Taking back what silent workers held, and what nobody took up."""

from dataclasses import replace

import pytest

from gyoza.control.leadership import Deposed
from gyoza.control.reap import evict
from gyoza.models.definition import OpDefinition, Timeouts
from gyoza.policy.deadline import START_S

from .stage import STARTED, Cluster, failed
from .test_submit import ADD, ask_for


async def test_a_worker_that_falls_silent_is_evicted_and_its_runs_go_on_elsewhere(cluster: Cluster):
    held = await cluster.running()
    cluster.later(20)
    assert await cluster.reap() == {"evicted": 0, "expired": 0}
    cluster.later(1)
    assert await cluster.reap() == {"evicted": 1, "expired": 0}
    assert await cluster.story(held.run_id) == ["ASSIGNED 1", "STARTED 1", "FAILED 1", "RETRIED 2"]
    await cluster.beat("w2")
    await cluster.place()
    assert (await cluster.handed("w2")).attempt == 2


async def test_it_is_evicted_once(cluster: Cluster):
    await cluster.beat()
    cluster.later(30)
    assert (await cluster.reap())["evicted"] == 1
    assert (await cluster.reap())["evicted"] == 0


async def test_an_evicted_worker_takes_nothing_until_it_comes_back(cluster: Cluster):
    await cluster.beat()
    cluster.later(30)
    await cluster.reap()
    await cluster.submit()
    assert await cluster.place() == 0
    await cluster.beat()
    assert await cluster.place() == 1


async def test_when_it_comes_back_it_is_told_to_stop_what_went_on_elsewhere(cluster: Cluster):
    held = await cluster.running()
    cluster.later(30)
    await cluster.reap()
    heard = await cluster.beat(holding=[(held.run_id, 1)])
    assert [(stop.run_id, stop.attempt, stop.reason) for stop in heard.stop] == [(held.run_id, 1, "worker_lost")]
    assert await cluster.slots_taken() == 1
    assert (await cluster.tell(held, 2, failed())).code == "lease_lost"
    assert (await cluster.tell(held, 3, settled=True)).ok
    assert await cluster.slots_taken() == 0


async def test_a_run_that_lost_five_attempts_is_stopped(cluster: Cluster):
    run_id = await cluster.submit()
    for attempt in range(1, 6):
        await cluster.beat(f"w{attempt}")
        await cluster.place()
        await cluster.tell(await cluster.handed(f"w{attempt}"), 1, STARTED)
        cluster.later(30)
        await cluster.reap()
    run = await cluster.run(run_id)
    assert (run.state, run.reason, run.current_attempt) == ("FAILED", "worker_lost", 5)
    assert (run.infra_losses, run.user_failures) == (5, 0)


async def test_an_assignment_that_nobody_takes_up_is_released_and_costs_nothing(cluster: Cluster):
    held = await cluster.assigned()
    await cluster.keep_alive("w1", START_S - 1)
    assert (await cluster.reap())["expired"] == 0
    await cluster.keep_alive("w1", 1)
    assert (await cluster.reap())["expired"] == 1
    run = await cluster.run(held.run_id)
    assert (run.state, run.current_attempt, run.infra_losses, run.user_failures) == ("PENDING", 2, 0, 0)


async def test_a_run_may_set_its_own_time_to_be_taken_up(cluster: Cluster):
    wanted: OpDefinition = replace(ADD, timeouts=Timeouts(start_s=2.5))
    await cluster.deploy(wanted)
    await cluster.beat()
    run = await ask_for(cluster, b'{"a": 1}')
    await cluster.place()
    cluster.later(2.4)
    assert (await cluster.reap())["expired"] == 0
    cluster.later(0.2)
    assert (await cluster.reap())["expired"] == 1
    assert await cluster.state(run.id) == ("PENDING", 2)


async def test_an_assignment_that_is_held_is_not_released(cluster: Cluster):
    held = await cluster.assigned()
    await cluster.beat(holding=[(held.run_id, 1)])
    await cluster.keep_alive("w1", START_S + 30, holding=[(held.run_id, 1)])
    assert (await cluster.reap())["expired"] == 0
    assert await cluster.state(held.run_id) == ("ASSIGNED", 1)


async def test_what_was_cancelled_stays_cancelled_when_its_worker_is_lost(cluster: Cluster):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    story = await cluster.story(held.run_id)
    cluster.later(30)
    assert (await cluster.reap())["evicted"] == 1
    assert await cluster.story(held.run_id) == story


async def test_a_worker_that_is_heard_while_it_is_to_be_evicted_stays(cluster: Cluster):
    await cluster.beat()
    cluster.later(30)
    await cluster.beat()
    assert not await evict(cluster.database, cluster.epoch, "w1", cluster.pace, cluster.now)


async def test_a_server_that_no_longer_leads_takes_nothing_back(cluster: Cluster):
    held = await cluster.running()
    cluster.later(30)
    await cluster.ask("UPDATE leader SET epoch = epoch + 1")
    with pytest.raises(Deposed):
        await cluster.reap()
    assert await cluster.state(held.run_id) == ("RUNNING", 1)
