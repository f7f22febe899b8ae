"""Many at once: nothing is lost, nothing is done twice, and nobody waits for ever."""

import asyncio
import random
from dataclasses import replace
from itertools import chain

from gyoza.control.append import append
from gyoza.models.errors import Refusal
from gyoza.models.lifecycle import EventType as E
from gyoza.policy.life import Happening
from gyoza.store.attempts import Assigned

from .stage import COMPLETED, STARTED, Cluster, failed, said


async def test_batches_over_the_same_runs_in_any_order_all_come_through(cluster: Cluster):
    held = [await cluster.running() for _ in range(8)]

    async def batch(seed: int) -> list[bool]:
        mixed = random.Random(seed).sample(held, len(held))
        notes = [Happening(E.INFO, f"{seed}")]
        return [result.ok for result in await cluster.tell_all(*(said(each, 10 + seed, *notes) for each in mixed))]

    assert all(chain.from_iterable(await asyncio.gather(*(batch(seed) for seed in range(24)))))
    for each in held:
        assert (await cluster.story(each.run_id)).count("INFO 1") >= 1


async def test_no_event_is_lost_and_no_number_given_twice(cluster: Cluster):
    run_id = await cluster.submit()
    notes = [append(cluster.database, run_id, Happening(E.INFO, str(n)), cluster.now) for n in range(40)]
    await asyncio.gather(*notes)
    assert await cluster.story(run_id) == ["INFO 1"] * 40
    msgs = await cluster.ask("SELECT msg #>> '{}' FROM events WHERE run_id = %s", run_id)
    assert sorted(int(msg) for (msg,) in msgs) == list(range(40))


async def test_an_ending_and_a_cancellation_do_not_overwrite_each_other(cluster: Cluster):
    for _ in range(10):
        held = await cluster.running()
        told, cancelled = await asyncio.gather(
            cluster.tell(held, 2, COMPLETED), cluster.cancel(held.run_id), return_exceptions=True
        )
        run = await cluster.run(held.run_id)
        assert not isinstance(told, BaseException)
        if run.state == "COMPLETED":
            assert told.ok
            assert isinstance(cancelled, Refusal)
            assert bytes(run.outputs) == b'{"y":1}'
        else:
            assert (run.state, told.code, cancelled, run.outputs) == ("CANCELLED", "lease_lost", None, None)


async def test_a_report_sent_many_times_at_once_is_applied_once(cluster: Cluster):
    held = await cluster.running(attempts=3)
    results = await asyncio.gather(*(cluster.tell(held, 2, failed(), settled=True) for _ in range(10)))
    assert all(result.ok for result in results)
    assert await cluster.story(held.run_id) == ["ASSIGNED 1", "STARTED 1", "FAILED 1", "RETRIED 2"]


async def test_a_whole_cluster_at_work_at_once_ends_with_every_run_done_once(cluster: Cluster):
    """Submitting, placing, reporting, cancelling, draining heartbeats: all at the same time, on the same rows."""
    names = ["w1", "w2", "w3"]
    for name in names:
        await cluster.beat(name)
    stopping = asyncio.Event()

    async def leads() -> None:
        while not stopping.is_set():
            await cluster.place()
            await cluster.reap()

    async def works(name: str) -> None:
        seen: dict[tuple[str, int], Assigned] = {}
        while not stopping.is_set():
            fresh = (await cluster.look(name, seen)).assignments
            seen |= {(each.run_id, each.attempt): each for each in fresh}
            await cluster.tell_all(*(said(each, 1, STARTED) for each in fresh))
            await cluster.beat(name, seen)
            await cluster.tell_all(*(said(each, 2, COMPLETED) for each in reversed(fresh)))
            await cluster.tell_all(*(replace(said(each, 3), settled=True) for each in fresh))

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for each in (leads(), *(works(name) for name in names)):
            tasks.create_task(each)
        run_ids = [await cluster.submit() for _ in range(60)]
        while await cluster.ask("SELECT 1 FROM attempts WHERE settled_at IS NULL LIMIT 1"):
            await asyncio.sleep(0.01)
        stopping.set()
    done = ["ASSIGNED 1", "STARTED 1", "COMPLETED 1"]
    assert [await cluster.story(run_id) for run_id in run_ids] == [done] * 60
