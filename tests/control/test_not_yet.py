"""Runs that wait for a time: delayed when they were asked for, or pausing before they are tried again."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from gyoza.control import place
from gyoza.control.append import append
from gyoza.control.cancel import cancelled
from gyoza.control.change import Change, change_all
from gyoza.control.query import attempts_of
from gyoza.control.submit import AdHoc, Options
from gyoza.control.update import Update, update
from gyoza.models.errors import NotAllowedNow
from gyoza.models.resources import Resources
from gyoza.policy.life import PRIORITY_POINT
from gyoza.store import queue
from gyoza.store.database import Connection

from .stage import NOW, STARTED, Cluster, failed

ROOM_FOR_ONE = Resources(cpu_m=1000, ram_mb=256, slots=1)
SOMEBODY_WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def ask(cluster: Cluster, **options: Any) -> str:
    return (await cluster.ask_for(AdHoc("busybox", options=Options(**options)))).id


async def delayed(cluster: Cluster, seconds: float, **options: Any) -> str:
    return await ask(cluster, run_at=cluster.now + timedelta(seconds=seconds), **options)


async def pausing(cluster: Cluster, *, backoff_s: float = 30, attempts: int = 3, **more: Any) -> str:
    """A run whose first attempt has failed on w1, just now."""
    await cluster.beat()
    run_id = await ask(cluster, retry_policy={"max_attempts": attempts, "backoff_s": backoff_s}, **more)
    await cluster.place()
    held = next(each for each in (await cluster.look()).assignments if each.run_id == run_id)
    assert (await cluster.tell(held, 1, STARTED, failed(), settled=True)).ok
    return run_id


async def waits(cluster: Cluster, run_id: str) -> tuple[str, Any, bool]:
    run = await cluster.run(run_id)
    ((due,),) = await cluster.ask("SELECT due FROM runs WHERE id = %s", run_id)
    return run.state.value, run.run_at, due


@pytest.mark.parametrize("seconds", [-1e9, -1, 0])
async def test_a_time_that_has_come_delays_nothing(cluster: Cluster, seconds: float):
    await cluster.beat()
    run_id = await delayed(cluster, seconds)
    run = await cluster.run(run_id)
    assert (run.run_at, run.queue_at) == (NOW + timedelta(seconds=seconds), NOW - 5 * PRIORITY_POINT)
    assert await cluster.place() == 1


async def test_a_delayed_run_is_placed_when_its_time_has_come_and_not_before(cluster: Cluster):
    await cluster.beat()
    run_id = await delayed(cluster, 10)
    at = NOW + timedelta(seconds=10)
    assert await waits(cluster, run_id) == ("PENDING", at, False)
    cluster.later(9.999)
    assert await cluster.place() == 0
    cluster.later(0.001)
    assert await cluster.place() == 1
    assert (await cluster.handed()).run_id == run_id
    assert (await cluster.run(run_id)).run_at == at


async def test_a_pause_is_waited_for_and_shown(cluster: Cluster):
    run_id = await pausing(cluster)
    assert await waits(cluster, run_id) == ("PENDING", NOW + timedelta(seconds=30), False)
    cluster.later(29)
    assert await cluster.place() == 0
    cluster.later(1)
    assert await cluster.place() == 1
    assert (await cluster.handed()).attempt == 2


async def test_a_pause_grows_from_failure_to_failure(cluster: Cluster):
    run_id = await pausing(cluster)
    cluster.later(30)
    await cluster.place()
    await cluster.tell(await cluster.handed(), 1, STARTED, failed(), settled=True)
    assert (await cluster.run(run_id)).run_at == cluster.now + timedelta(seconds=60)


async def test_a_lost_worker_makes_its_runs_pause_and_a_drained_one_does_not(cluster: Cluster):
    await cluster.beat()
    run_id = await ask(cluster, retry_policy={"backoff_s": 30})
    await cluster.place()
    held = await cluster.handed()
    await cluster.tell(held, 1, failed("drained"), settled=True)
    assert await waits(cluster, run_id) == ("PENDING", None, True)
    await cluster.place()
    await cluster.handed()
    cluster.later(30)
    await cluster.reap()
    assert await waits(cluster, run_id) == ("PENDING", cluster.now + timedelta(seconds=30), False)


@pytest.mark.parametrize("wait", [delayed, pausing])
async def test_the_wait_does_not_bind_a_program_that_executes_runs_by_itself(cluster: Cluster, wait: Any):
    run_id = await (wait(cluster, 30) if wait is delayed else wait(cluster))
    await append(cluster.database, run_id, STARTED, cluster.now)
    assert (await cluster.run(run_id)).state == "RUNNING"
    cluster.later(60)
    assert await cluster.place() == 0


async def test_a_wait_is_cancelled_and_a_retry_by_hand_begins_at_once(cluster: Cluster):
    run_id = await pausing(cluster)
    with pytest.raises(NotAllowedNow):
        await cluster.retry(run_id)
    await cluster.cancel(run_id)
    cluster.later(60)
    assert await cluster.place() == 0
    await cluster.retry(run_id)
    assert await waits(cluster, run_id) == ("PENDING", None, True)
    assert (await cluster.run(run_id)).queue_at == cluster.now - 5 * PRIORITY_POINT
    assert await cluster.place() == 1


async def test_its_place_in_the_queue_counts_from_the_end_of_the_wait(cluster: Cluster):
    run_id = await pausing(cluster, priority=2)
    assert (await cluster.run(run_id)).queue_at == NOW + timedelta(seconds=30) - 2 * PRIORITY_POINT
    other = await delayed(cluster, 40, priority=2)
    assert (await cluster.run(other)).queue_at == NOW + timedelta(seconds=40) - 2 * PRIORITY_POINT


async def test_another_priority_moves_a_waiting_run_by_its_hours_and_lets_it_wait(cluster: Cluster):
    await cluster.beat()
    run_id = await delayed(cluster, 3600, priority=5)
    for priority in (-3, 1000):
        await update(cluster.database, run_id, Update(priority=priority), cluster.now)
        at = NOW + timedelta(hours=1)
        assert (await cluster.run(run_id)).queue_at == at - priority * PRIORITY_POINT
        assert await waits(cluster, run_id) == ("PENDING", at, False)
    assert await cluster.place() == 0


async def test_once_they_are_due_the_order_is_that_of_the_queue(cluster: Cluster):
    later = await delayed(cluster, 20, priority=5)
    sooner = await delayed(cluster, 10, priority=5)
    urgent = await delayed(cluster, 30, priority=6)
    plain = await cluster.submit(priority=5)
    cluster.later(30)
    for expected in (urgent, plain, sooner, later):
        worker = f"w-{expected}"
        await cluster.beat(worker, resources=ROOM_FOR_ONE)
        assert await cluster.place() == 1
        assert (await cluster.handed(worker)).run_id == expected


async def test_a_crowd_that_is_not_due_takes_no_place_in_the_window(cluster: Cluster):
    """However urgent it is: the window holds what may be placed now."""
    for _ in range(5):
        await delayed(cluster, 60, priority=1000)
    plain = await cluster.submit(priority=-1000)
    async with cluster.database.connection() as connection:
        assert [each.run_id for each in await queue.window(connection, per_shape=1)] == [plain]


async def test_a_crowd_that_becomes_due_at_once_joins_in_several_rounds(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue, "MOST", 2)
    await cluster.beat()
    for _ in range(5):
        await delayed(cluster, 10)
    cluster.later(10)
    assert [await cluster.place() for _ in range(4)] == [2, 2, 1, 0]


async def test_who_changes_a_run_that_becomes_due_is_not_waited_for(cluster: Cluster):
    """It joins in the next round."""
    await cluster.beat()
    locked, free = await delayed(cluster, 10), await delayed(cluster, 10)
    cluster.later(10)

    async def while_locked(connection: Connection) -> None:
        await connection.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", [locked])
        async with asyncio.timeout(10):
            assert await cluster.place() == 1

    await cluster.database.transact(while_locked)
    assert [each.run_id for each in (await cluster.look()).assignments] == [free]
    assert await cluster.place() == 1


async def test_letting_runs_in_holds_none_of_them_while_others_are_placed(cluster: Cluster):
    """Those who change many runs lock them in the order of their ids: a round that held some would meet them."""
    await cluster.beat()
    low = await cluster.submit()
    cluster.later(1)  # so that the second id is the higher one
    high = await delayed(cluster, 10)
    cluster.later(10)

    async def in_between(connection: Connection) -> asyncio.Task[int]:
        await change_all(connection, [Change(low, cancelled)], cluster.now)
        placing = asyncio.create_task(cluster.place())
        while not await cluster.ask(SOMEBODY_WAITS):
            await asyncio.sleep(0.01)
        await connection.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE NOWAIT", [high])
        return placing

    await (await cluster.database.transact(in_between))
    assert await cluster.state(low) == ("CANCELLED", 1)
    assert await cluster.state(high) == ("ASSIGNED", 1)


async def test_a_server_that_no_longer_leads_places_nothing_that_became_due(cluster: Cluster):
    await cluster.beat()
    run_id = await delayed(cluster, 10)
    cluster.later(10)
    with pytest.raises(place.leader.Deposed):
        await place.place(cluster.database, cluster.epoch - 1, cluster.now)
    assert await cluster.state(run_id) == ("PENDING", 1)


async def test_a_pause_is_the_current_attempt_s_and_leaves_the_others_alone(cluster: Cluster):
    run_id = await pausing(cluster)
    first, second = await attempts_of(cluster.database, run_id)
    assert (first.state, first.reason, second.state) == ("FAILED", "op_error", "PENDING")
    run = await cluster.run(run_id)
    assert (run.user_failures, run.infra_losses, run.current_attempt) == (1, 0, 2)
