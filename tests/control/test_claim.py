"""Claiming: a worker hears what is its own, as often as it asks."""

import asyncio

import pytest

from gyoza.control.claim import Claim, Claimed, check_instance, claim
from gyoza.control.workforce import drain
from gyoza.models.errors import NotRegistered, Superseded
from gyoza.models.run import ExecutionSummary
from gyoza.store.bell import Bell

from .stage import STARTED, Cluster, failed

PROMPTLY_S = 4
"""Far less than a claim would wait by itself."""


async def test_claiming_changes_nothing_and_may_be_repeated(cluster: Cluster):
    held = await cluster.assigned()
    assert (await cluster.look()).assignments == (await cluster.look()).assignments == [held]
    assert await cluster.state(held.run_id) == ("ASSIGNED", 1)


async def test_what_is_known_is_not_told_again(cluster: Cluster):
    held, other = await cluster.assigned(), await cluster.assigned()
    claimed = await cluster.look(known=[(held.run_id, 1)])
    assert [each.run_id for each in claimed.assignments] == [other.run_id]


async def test_no_more_is_told_than_asked_for_and_the_rest_later(cluster: Cluster):
    first, second = await cluster.assigned(), await cluster.assigned()
    (told,) = (await cluster.look(most=1)).assignments
    (rest,) = (await cluster.look(most=1, known=[(told.run_id, 1)])).assignments
    assert {told.run_id, rest.run_id} == {first.run_id, second.run_id}
    assert (await cluster.look(most=0)).assignments == []


async def test_every_later_attempt_is_handed_what_the_first_was_run_from(cluster: Cluster):
    held = await cluster.running(attempts=3)
    assert held.to_dict()["image_digest"] is None
    await cluster.tell(held, 2, failed(), summary=ExecutionSummary(image_digest="op@sha256:first"), settled=True)
    await cluster.place()
    second = await cluster.handed()
    assert second.to_dict()["image_digest"] == "op@sha256:first"
    await cluster.tell(second, 1, STARTED, failed(), summary=ExecutionSummary(image_digest="other"), settled=True)
    await cluster.place()
    assert (await cluster.handed()).to_dict()["image_digest"] == "op@sha256:first"


async def test_an_attempt_that_came_to_no_image_pins_none(cluster: Cluster):
    held = await cluster.assigned(attempts=2)
    await cluster.tell(held, 1, failed(), settled=True)
    await cluster.place()
    second = await cluster.handed()
    assert second.to_dict()["image_digest"] is None
    await cluster.tell(second, 1, STARTED, failed(), summary=ExecutionSummary(image_digest="late"), settled=True)
    await cluster.retry(held.run_id)
    await cluster.place()
    assert (await cluster.handed()).to_dict()["image_digest"] == "late"


async def test_what_was_started_is_not_handed_out_again(cluster: Cluster):
    await cluster.running()
    assert (await cluster.look()).assignments == []


async def test_what_was_cancelled_is_to_be_stopped(cluster: Cluster):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    (stop,) = (await cluster.look(known=[(held.run_id, 1)])).stop
    assert stop.to_dict() == {"run_id": held.run_id, "attempt": 1, "reason": "cancelled"}


async def test_only_the_process_that_registered_may_claim(cluster: Cluster):
    with pytest.raises(NotRegistered):
        await cluster.look("nobody")
    await cluster.beat("w1")
    with pytest.raises(NotRegistered):
        await cluster.look("w1", instance="another")
    await cluster.beat("w1", instance="w1-b")
    with pytest.raises(Superseded):
        await cluster.look("w1")
    with pytest.raises(Superseded):
        await check_instance(cluster.database, "w1", "w1-a")
    await check_instance(cluster.database, "w1", "w1-b")


async def test_an_evicted_worker_must_register_anew(cluster: Cluster):
    await cluster.beat()
    cluster.later(30)
    await cluster.reap()
    with pytest.raises(NotRegistered):
        await cluster.look()
    await cluster.beat()
    await cluster.look()


async def wait_for_news(cluster: Cluster, bell: Bell, *known: tuple[str, int], most: int = 5) -> asyncio.Task[Claimed]:
    """A claim that has looked, found nothing and waits."""
    waiting = asyncio.create_task(claim(cluster.database, bell, Claim("w1", "w1-a", frozenset(known), most, 60)))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    return waiting


async def test_an_assignment_wakes_the_worker_that_waits_for_it(cluster: Cluster):
    await cluster.beat()
    async with Bell(cluster.database.url) as bell:
        waiting = await wait_for_news(cluster, bell)
        await cluster.submit()
        await cluster.place()
        claimed = await asyncio.wait_for(waiting, PROMPTLY_S)
    assert len(claimed.assignments) == 1


async def test_a_cancellation_wakes_also_a_worker_that_takes_nothing(cluster: Cluster):
    held = await cluster.running()
    async with Bell(cluster.database.url) as bell:
        waiting = await wait_for_news(cluster, bell, (held.run_id, 1), most=0)
        await cluster.cancel(held.run_id)
        claimed = await asyncio.wait_for(waiting, PROMPTLY_S)
    assert [stop.run_id for stop in claimed.stop] == [held.run_id]


async def test_a_drain_wakes_the_worker(cluster: Cluster):
    await cluster.beat()
    async with Bell(cluster.database.url) as bell:
        waiting = await wait_for_news(cluster, bell, most=0)
        await drain(cluster.database, "w1", cluster.now)
        assert (await asyncio.wait_for(waiting, PROMPTLY_S)).drain


async def test_a_server_that_stops_answers_its_long_polls_at_once(cluster: Cluster):
    await cluster.beat()
    async with Bell(cluster.database.url) as bell:
        waiting = await wait_for_news(cluster, bell)
        bell.close()
        claimed = await asyncio.wait_for(waiting, PROMPTLY_S)
    assert (claimed.assignments, claimed.stop) == ([], [])


async def test_a_worker_that_is_superseded_while_it_waits_is_told_so(cluster: Cluster):
    held = await cluster.assigned()
    await cluster.tell(held, 1, STARTED)
    async with Bell(cluster.database.url) as bell:
        waiting = await wait_for_news(cluster, bell, (held.run_id, 1))
        await cluster.beat("w1", instance="w1-b")
        with pytest.raises(Superseded):
            await asyncio.wait_for(waiting, PROMPTLY_S)
