"""The oldest PostgreSQL that we support, where this system has it: migration, and a life from submit to the end."""

from collections.abc import AsyncIterator

import pytest

from gyoza.control import deploy
from gyoza.control.query import Filters, page
from gyoza.control.submit import AdHoc, Options
from gyoza.control.workforce import drain, every
from gyoza.store.database import Database
from gyoza.store.schema import OLDEST_SUPPORTED, migrate

from .stage import COMPLETED, Cluster, Still, failed
from .test_not_yet import delayed, pausing
from .test_submit import ADD, ask_for
from .test_tidy import Keeper, over


@pytest.fixture(scope="module")
async def migrated(oldest: str) -> AsyncIterator[Database]:
    migrate(oldest)
    async with Database(oldest, clock=Still()) as database:
        yield database


@pytest.fixture
async def old_cluster(migrated: Database) -> Cluster:
    cluster = Cluster(migrated)
    await cluster.clear()
    await cluster.lead()
    return cluster


async def test_it_is_the_oldest(old_cluster: Cluster):
    ((version,),) = await old_cluster.ask("SELECT current_setting('server_version_num')::integer / 10000")
    assert version == OLDEST_SUPPORTED


async def test_a_run_is_placed_claimed_and_completed(old_cluster: Cluster):
    held = await old_cluster.running()
    assert (await old_cluster.tell(held, 2, COMPLETED, settled=True)).ok
    assert await old_cluster.story(held.run_id) == ["ASSIGNED 1", "STARTED 1", "COMPLETED 1"]
    assert bytes((await old_cluster.run(held.run_id)).outputs) == b'{"y":1}'


async def test_a_run_of_a_definition_is_tried_again_and_keeps_its_json(old_cluster: Cluster):
    await old_cluster.deploy(ADD)
    run = await ask_for(old_cluster, b'{"a": 1.10e0}')
    await old_cluster.beat()
    await old_cluster.place()
    held = await old_cluster.handed()
    assert bytes(held.inputs) == b'{"a":1.10e0,"b":2}'
    await old_cluster.tell(held, 1, failed("disk_full"), settled=True)
    assert await old_cluster.state(run.id) == ("PENDING", 2)


async def test_a_worker_is_drained_listed_and_evicted(old_cluster: Cluster):
    held = await old_cluster.running()
    await drain(old_cluster.database, "w1", old_cluster.now)
    old_cluster.later(30)
    assert await old_cluster.reap() == {"evicted": 1, "expired": 0}
    assert await old_cluster.state(held.run_id) == ("PENDING", 2)
    (staff,) = await every(old_cluster.database, old_cluster.pace, old_cluster.now)
    assert (staff.state, staff.worker.drain) == ("lost", True)


async def test_runs_wait_for_their_time_and_pause(old_cluster: Cluster):
    await old_cluster.beat()
    later, again = await delayed(old_cluster, 25), await pausing(old_cluster, backoff_s=25)
    assert await old_cluster.place() == 0
    old_cluster.later(25)
    assert await old_cluster.place() == 2
    assert {(each.run_id, each.attempt) for each in (await old_cluster.look()).assignments} == {(later, 1), (again, 2)}


async def test_a_run_that_waits_too_long_is_ended(old_cluster: Cluster):
    limited = await old_cluster.ask_for(AdHoc("busybox", options=Options(timeouts={"queue_s": 10.0})))
    old_cluster.later(10)
    assert (await old_cluster.reap())["expired"] == 1
    assert (await old_cluster.run(limited.id)).reason == "queue_timeout"


async def test_runs_are_found_by_their_tags_and_deleted_when_they_are_over(old_cluster: Cluster):
    going, staying = [await over(old_cluster, tags=["a", "b"], delete_after_s=seconds) for seconds in (0, 60)]
    found = await page(old_cluster.database, Filters(tags=("b", "a")), 10)
    assert {run.id for run in found.runs} == {going, staying}
    keeper = Keeper(old_cluster)
    assert (await keeper.tidy())["runs"] == 1
    assert keeper.discarded == [going]


async def test_a_definition_is_deleted_and_back(old_cluster: Cluster):
    await old_cluster.deploy(ADD)
    await deploy.delete(old_cluster.database, "add", old_cluster.now)
    assert await deploy.every(old_cluster.database) == []
    again, is_new = await old_cluster.deploy(ADD)
    assert (again.revision, is_new) == (1, False)
    (shown,) = await deploy.every(old_cluster.database)
    assert (shown["revision"], shown["digest"]) == (again.revision, again.digest)
