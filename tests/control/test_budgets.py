"""What the frequent things cost: in statements, since those can be counted on any machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from gyoza.control import claim, feed, logs, place, tidy, trust
from gyoza.control.append import append
from gyoza.control.cancel import cancel
from gyoza.control.query import get, page
from gyoza.models.lifecycle import EventType as E
from gyoza.policy.life import Happening
from gyoza.server.filestore import Folder
from gyoza.store import queue
from gyoza.store.pages import Filters

from .stage import COMPLETED, STARTED, Cluster, failed, said
from .test_tidy import Keeper, over, published

COUNTED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


class Counted(list[str]):
    """The statements that were sent, but those that only notify; transactions and the pool's own care are free."""

    @contextmanager
    def within(self, budget: int) -> Iterator[None]:
        self.clear()
        yield
        assert 0 < len(self) <= budget, "\n".join(self)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> Counted:
    """Of this cluster's database alone: other suites' servers may live on in the same loop."""
    statements, ours = Counted(), conninfo_to_dict(cluster.database.url)["dbname"]
    execute = psycopg.AsyncConnection.execute

    async def counting(self: Any, query: Any, *args: Any, **how: Any) -> Any:
        text = " ".join(str(query).split())
        if self.info.dbname == ours and text.startswith(COUNTED) and "pg_notify" not in text:
            statements.append(text)
        return await execute(self, query, *args, **how)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counting)
    return statements


@pytest.fixture(autouse=True)
async def worker(cluster: Cluster) -> None:
    await cluster.beat()


async def test_a_heartbeat_that_changes_nothing(cluster: Cluster, counted: Counted):
    held = [await cluster.running() for _ in range(3)]
    holding = [(each.run_id, each.attempt) for each in held]
    with counted.within(2):
        await cluster.beat(holding=holding)


async def test_a_submitted_run(cluster: Cluster, counted: Counted):
    with counted.within(1):
        await cluster.submit()


async def test_a_change_of_one_run(cluster: Cluster, counted: Counted):
    run_id = await cluster.submit()
    with counted.within(5):
        await append(cluster.database, run_id, STARTED, cluster.now)
    with counted.within(5):
        await cancel(cluster.database, run_id, cluster.now)


@pytest.mark.parametrize("number", [1, 2, 40])
async def test_a_batch_of_reports_costs_as_much_as_one(cluster: Cluster, counted: Counted, number: int):
    held = [await cluster.assigned() for _ in range(number)]
    notes = [Happening(E.INFO, str(n)) for n in range(10)]
    with counted.within(5):
        results = await cluster.tell_all(*(said(each, 1, STARTED, *notes, COMPLETED, settled=True) for each in held))
    assert all(result.ok for result in results)


async def test_a_part_of_a_log(cluster: Cluster, counted: Counted, tmp_path: Path):
    held, folder = await cluster.running(), Folder(tmp_path)
    for offset, budget in ((0, 6), (3, 6), (0, 1)):
        sent = logs.Sent(held.run_id, held.attempt, held.lease, None, offset, b"abc")
        with counted.within(budget):
            await logs.append(cluster.database, folder, sent, 100)


@pytest.mark.parametrize("number", [1, 30])
async def test_a_round_of_placing(cluster: Cluster, counted: Counted, number: int):
    for _ in range(number):
        await cluster.submit()
    with counted.within(10):
        assert await place.place(cluster.database, cluster.epoch, cluster.now) == number


async def test_a_round_with_nothing_to_place(cluster: Cluster, counted: Counted):
    with counted.within(3):
        await cluster.place()


async def test_a_look_at_what_is_assigned(cluster: Cluster, counted: Counted):
    held = await cluster.assigned()
    with counted.within(3):
        assert (await cluster.look()).assignments == [held]
    with counted.within(1):
        await claim.check_instance(cluster.database, "w1", "w1-a")


async def test_a_turn_of_the_reaper_with_nothing_to_reap(cluster: Cluster, counted: Counted):
    with counted.within(3):
        assert await cluster.reap() == {"evicted": 0, "expired": 0}


@pytest.mark.parametrize("number", [1, 30])
async def test_the_eviction_of_a_worker(cluster: Cluster, counted: Counted, number: int):
    for _ in range(number):
        await cluster.running()
    cluster.later(30)
    with counted.within(13):
        assert (await cluster.reap())["evicted"] == 1


async def test_a_look_at_whether_any_worker_is_in_doubt(cluster: Cluster, counted: Counted):
    for _ in range(4):
        held = await cluster.running()
        await cluster.tell(held, 2, failed(), settled=True)
    with counted.within(1):
        assert await trust.judge(cluster.database, cluster.epoch, cluster.now) == {}


async def test_judging_workers(cluster: Cluster, counted: Counted):
    for _ in range(30):
        held = await cluster.running()
        await cluster.tell(held, 2, failed(), settled=True)
    with counted.within(6):
        await trust.judge(cluster.database, cluster.epoch, cluster.now)


@pytest.mark.parametrize("number", [0, 1, 30])
async def test_a_batch_of_runs_that_are_deleted(cluster: Cluster, counted: Counted, number: int):
    for _ in range(number):
        await over(cluster, delete_after_s=0, tags=["a", "b"])
    await published(cluster)
    with counted.within(9):
        done = await tidy.tidy(cluster.database, cluster.epoch, None, Keeper(cluster).shelf, cluster.now)
    assert done["runs"] == number


@pytest.mark.parametrize("number", [1, 20])
async def test_a_page_of_runs(cluster: Cluster, counted: Counted, number: int):
    for _ in range(number):
        await cluster.submit()
    with counted.within(1):
        assert len((await page(cluster.database, Filters(), 100)).runs) == number


async def test_one_run(cluster: Cluster, counted: Counted):
    run_id = await cluster.submit()
    with counted.within(2):
        await get(cluster.database, run_id)


async def test_the_queue_is_looked_at_in_one(cluster: Cluster, counted: Counted):
    for cpu_m in range(1, 20):
        await cluster.submit(cpu_m=cpu_m)
    async with cluster.database.connection() as connection:
        with counted.within(1):
            assert len(await queue.window(connection)) == 19


@pytest.mark.parametrize("number", [0, 1, 300])
async def test_publishing(cluster: Cluster, counted: Counted, number: int):
    held = await cluster.running()
    await cluster.publish()
    if number:
        await cluster.tell(held, 2, *(Happening(E.INFO, str(n)) for n in range(number)))
    with counted.within(3):
        assert await cluster.publish() == number


@pytest.mark.parametrize("number", [1, 100])
async def test_what_is_new_in_the_feed(cluster: Cluster, counted: Counted, number: int):
    held = await cluster.running()
    await cluster.tell(held, 2, *(Happening(E.INFO, str(n)) for n in range(number)))
    await cluster.publish()
    with counted.within(2):
        assert len((await feed.page(cluster.database, 0, lambda place: True)).entries) == number + 2
    with counted.within(1):
        await feed.page(cluster.database, 0, lambda place: False)
