"""Whom a change wakes: no more than those whom it concerns."""

import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import psycopg
import pytest

from gyoza.control import workforce
from gyoza.models.lifecycle import EventType as E
from gyoza.policy.life import Happening

from .stage import COMPLETED, Cluster, failed, said


class Listener:
    """Hears what is rung, as another server process would."""

    def __init__(self, connection: psycopg.AsyncConnection):
        self._connection = connection

    async def rung_by(self, change: Awaitable[Any]) -> list[str]:
        """The messages of one change, in their order."""
        await self._up_to("the start")
        await change
        return await self._up_to("the end")

    async def _up_to(self, mark: str) -> list[str]:
        await self._connection.execute("SELECT pg_notify('gyoza', %s)", [mark])
        heard: list[str] = []
        async for notice in self._connection.notifies():
            if notice.payload == mark:
                break
            heard.append(notice.payload)
        return heard


@pytest.fixture
async def listener(stage_url: str) -> AsyncIterator[Listener]:
    async with await psycopg.AsyncConnection.connect(stage_url, autocommit=True) as connection:
        await connection.execute("LISTEN gyoza")
        yield Listener(connection)


async def test_a_submitted_run_wakes_the_queue(cluster: Cluster, listener: Listener):
    assert await listener.rung_by(cluster.submit()) == ['["queue"]']


async def test_an_assignment_wakes_its_worker(cluster: Cluster, listener: Listener):
    await cluster.beat()
    await cluster.submit()
    assert await listener.rung_by(cluster.place()) == ['["outbox", "w1"]']


async def test_progress_wakes_only_who_publishes_it(cluster: Cluster, listener: Listener):
    held = await cluster.running()
    assert await listener.rung_by(cluster.tell(held, 2, Happening(E.PROGRESS, 5), Happening(E.INFO, "x"))) == [
        '["outbox"]'
    ]


async def test_a_cancellation_wakes_the_worker_and_not_the_queue(cluster: Cluster, listener: Listener):
    held = await cluster.running()
    assert await listener.rung_by(cluster.cancel(held.run_id)) == ['["outbox", "w1"]']


async def test_a_cancellation_of_what_waits_wakes_no_worker(cluster: Cluster, listener: Listener):
    run_id = await cluster.submit()
    assert await listener.rung_by(cluster.cancel(run_id)) == [f'["log:{run_id}", "outbox"]']


async def test_what_is_settled_wakes_the_queue_and_those_who_follow_its_log(cluster: Cluster, listener: Listener):
    held = await cluster.running()
    await cluster.tell(held, 2, COMPLETED)
    assert await listener.rung_by(cluster.tell(held, 3, settled=True)) == [f'["log:{held.run_id}", "queue"]']


async def test_a_removed_worker_wakes_those_who_follow_the_logs_of_what_it_held(cluster: Cluster, listener: Listener):
    over, live = await cluster.running(), await cluster.running()
    await cluster.tell(over, 2, COMPLETED)
    rung = "".join(await listener.rung_by(workforce.remove(cluster.database, "w1", cluster.now)))
    assert f"log:{over.run_id}" in rung and f"log:{live.run_id}" in rung


async def test_a_retry_wakes_the_queue(cluster: Cluster, listener: Listener):
    held = await cluster.running(attempts=2)
    (rung,) = await listener.rung_by(cluster.tell(held, 2, failed(), settled=True))
    assert "queue" in rung


async def test_a_whole_batch_rings_once(cluster: Cluster, listener: Listener):
    held = [await cluster.running() for _ in range(5)]
    endings = [said(each, 2, COMPLETED, settled=True) for each in held]
    (rung,) = await listener.rung_by(cluster.tell_all(*endings))
    assert json.loads(rung) == sorted([*(f"log:{each.run_id}" for each in held), "outbox", "queue"])


async def test_what_is_published_wakes_those_who_watch_and_nothing_to_publish_wakes_nobody(
    cluster: Cluster, listener: Listener
):
    await cluster.cancel(await cluster.submit())
    assert await listener.rung_by(cluster.publish()) == ['["feed"]']
    assert await listener.rung_by(cluster.publish()) == []


async def test_a_new_worker_wakes_the_queue_and_a_heartbeat_wakes_nobody(cluster: Cluster, listener: Listener):
    (rung,) = await listener.rung_by(cluster.beat())
    assert "queue" in rung
    assert await listener.rung_by(cluster.beat()) == []


async def test_a_drain_wakes_the_worker(cluster: Cluster, listener: Listener):
    await cluster.beat()
    (rung,) = await listener.rung_by(workforce.drain(cluster.database, "w1", cluster.now))
    assert "w1" in rung


async def test_a_resumed_worker_wakes_the_queue(cluster: Cluster, listener: Listener):
    await cluster.beat()
    await workforce.drain(cluster.database, "w1", cluster.now)
    (rung,) = await listener.rung_by(workforce.resume(cluster.database, "w1", cluster.now))
    assert {"queue", "w1"} <= set(json.loads(rung))


async def test_what_is_refused_wakes_nobody(cluster: Cluster, listener: Listener):
    held = await cluster.assigned()
    assert await listener.rung_by(cluster.tell(held, 1, COMPLETED)) == []
