"""What is over goes after its time, with all that belongs to it; what is not over, wanted or busy stays."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from gyoza.control import leadership, publish, tidy
from gyoza.control.append import append
from gyoza.control.cancel import cancelled
from gyoza.control.change import Change, change_all
from gyoza.control.leadership import Deposed
from gyoza.control.once import Asked, Reply, once
from gyoza.control.query import Filters, attempts_of, events_of, page
from gyoza.control.replay import replay
from gyoza.control.submit import AdHoc, Options
from gyoza.control.update import Update, update
from gyoza.models.errors import InvalidQuery, RunNotFound
from gyoza.models.lifecycle import EventType as E
from gyoza.models.run import OpRun
from gyoza.policy.life import Happening
from gyoza.store.database import Connection
from gyoza.store.idempotency import Reply as Answer

from .stage import COMPLETED, STARTED, Cluster, failed
from .test_submit import ADD, ask_for

DAY = timedelta(days=1)
NOTHING = {"runs": 0, "answers": 0, "logs": 0}


class Shelf:
    """Of it nothing is wanted but to let go of the logs of runs: `on_discard` is told of which."""

    def __init__(self, on_discard: Callable[[str], Awaitable[None]]):
        self._on_discard = on_discard

    async def discard_all(self, folder: str) -> None:
        await self._on_discard(folder.rpartition("/")[2])

    async def put(self, name: str, data: bytes) -> None:
        raise AssertionError

    async def read(self, name: str, start: int = 0) -> bytes:
        raise AssertionError

    async def discard(self, name: str) -> None:
        raise AssertionError


@dataclass
class Keeper:
    """Tidies up; `discarded` are the runs whose logs' bytes went, in their order."""

    cluster: Cluster
    keep_for: timedelta | None = 30 * DAY
    discarded: list[str] = field(default_factory=list)

    async def discard(self, run_id: str) -> None:
        assert not await self.is_there(run_id)
        self.discarded.append(run_id)

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.discard)

    async def tidy(self, epoch: int | None = None, *, publishing: bool = True) -> dict[str, int]:
        """One batch, after all that happened was published."""
        if publishing:
            await published(self.cluster)
        epoch = self.cluster.epoch if epoch is None else epoch
        return await tidy.tidy(self.cluster.database, epoch, self.keep_for, self.shelf, self.cluster.now)

    async def tidy_later(self, after: timedelta) -> int:
        """How many runs go so much later."""
        self.cluster.now += after
        return (await self.tidy())["runs"]

    async def is_there(self, run_id: str) -> bool:
        return bool(await self.cluster.ask("SELECT 1 FROM runs WHERE id = %s", run_id))


@pytest.fixture
def keeper(cluster: Cluster) -> Keeper:
    return Keeper(cluster)


async def published(cluster: Cluster) -> None:
    """All that happened."""
    while await cluster.publish():
        pass


async def ask(cluster: Cluster, **options: Any) -> str:
    return (await cluster.ask_for(AdHoc("busybox", options=Options(**options)))).id


async def over(cluster: Cluster, **options: Any) -> str:
    """A run that was executed from outside and ended just now."""
    run_id = await ask(cluster, **options)
    for event in (STARTED, COMPLETED):
        await append(cluster.database, run_id, event, cluster.now)
    return run_id


async def test_a_run_goes_when_its_time_is_over_with_all_that_is_known_of_it(cluster: Cluster, keeper: Keeper):
    held = await cluster.running(attempts=2)
    await cluster.ask("UPDATE runs SET tags = '{a,b}'")
    await cluster.ask("INSERT INTO run_tags SELECT unnest(tags), created_at, id FROM runs")
    await cluster.ask("INSERT INTO logs (run_id, attempt, size) SELECT id, 1, 5 FROM runs")
    await cluster.ask("INSERT INTO log_chunks (run_id, attempt, start, size, name) SELECT id, 1, 0, 5, 'x' FROM runs")
    await cluster.tell(held, 2, failed(), settled=True)
    await append(cluster.database, held.run_id, STARTED, cluster.now)
    await append(cluster.database, held.run_id, COMPLETED, cluster.now)
    assert await keeper.tidy_later(30 * DAY) == 0
    assert await keeper.tidy_later(timedelta(microseconds=1)) == 1
    assert keeper.discarded == [held.run_id]
    for table in ("runs", "attempts", "events", "run_tags", "feed", "logs", "log_chunks", "log_discards"):
        assert await cluster.ask(f"SELECT count(*) FROM {table}") == [(0,)], table


async def test_nobody_finds_it_any_more(cluster: Cluster, keeper: Keeper):
    run_id = await over(cluster, delete_after_s=0)
    await keeper.tidy()

    def render(runs: Sequence[OpRun]) -> Reply:
        raise AssertionError("it was replayed")

    for asked in (
        cluster.run(run_id),
        cluster.cancel(run_id),
        cluster.retry(run_id),
        attempts_of(cluster.database, run_id),
        events_of(cluster.database, run_id, -1, None),
        replay(cluster.database, run_id, {}, "test", render, cluster.now),
    ):
        with pytest.raises(RunNotFound, match=f"OpRun '{run_id}' not found"):
            await asked


@pytest.mark.parametrize("ending", [COMPLETED, failed(), Happening(E.CANCELLED)], ids=lambda event: event.type)
async def test_every_end_is_an_end(cluster: Cluster, keeper: Keeper, ending: Happening):
    run_id = await ask(cluster)
    for event in (STARTED, ending):
        await append(cluster.database, run_id, event, cluster.now)
    assert await keeper.tidy_later(31 * DAY) == 1


async def test_what_is_not_over_stays_however_old_it_is(cluster: Cluster, keeper: Keeper):
    await ask(cluster, delete_after_s=0)
    await append(cluster.database, await ask(cluster, delete_after_s=0), STARTED, cluster.now)
    await append(cluster.database, await ask(cluster), STARTED, cluster.now)
    await cluster.assigned()
    assert await keeper.tidy_later(1000 * DAY) == 0


async def test_without_a_time_runs_are_kept_for_ever_but_for_those_that_name_one(cluster: Cluster, keeper: Keeper):
    keeper.keep_for = None
    await over(cluster)
    named = await over(cluster, delete_after_s=60)
    assert await keeper.tidy_later(1000 * DAY) == 1
    assert keeper.discarded == [named]


async def test_a_run_s_own_time_counts_and_not_the_server_s(cluster: Cluster, keeper: Keeper):
    sooner, at_once = await over(cluster, delete_after_s=60), await over(cluster, delete_after_s=0)
    later = await over(cluster, delete_after_s=90 * 86400)
    await keeper.tidy()
    assert keeper.discarded == [at_once]
    assert await keeper.tidy_later(timedelta(seconds=59.9)) == 0
    await keeper.tidy_later(timedelta(seconds=0.1))
    assert keeper.discarded == [at_once, sooner]
    assert await keeper.tidy_later(89 * DAY) == 0
    assert await keeper.tidy_later(1 * DAY) == 1
    assert keeper.discarded == [at_once, sooner, later]


async def test_a_definition_says_it_for_its_runs_and_a_run_says_it_better(cluster: Cluster, keeper: Keeper):
    await cluster.deploy(replace(ADD, delete_after_s=3600.0))
    inherits = await ask_for(cluster, b'{"a": 1}')
    says = await ask_for(cluster, b'{"a": 1}', options=Options(delete_after_s=7200))
    assert (inherits.delete_after_s, says.delete_after_s) == (3600, 7200)
    for run in (inherits, says):
        await cluster.cancel(run.id)
    await keeper.tidy_later(timedelta(hours=1))
    assert keeper.discarded == [inherits.id]
    await keeper.tidy_later(timedelta(hours=1))
    assert keeper.discarded == [inherits.id, says.id]


@pytest.mark.parametrize("options", [{}, {"delete_after_s": 60}], ids=["server's time", "own time"])
async def test_what_is_pinned_stays_until_it_is_let_go(cluster: Cluster, keeper: Keeper, options: Any):
    run_id = await over(cluster, **options)
    await update(cluster.database, run_id, Update(pinned=True), cluster.now)
    assert await keeper.tidy_later(1000 * DAY) == 0
    await update(cluster.database, run_id, Update(pinned=False), cluster.now)
    assert await keeper.tidy_later(timedelta(0)) == 1


@pytest.mark.parametrize("options", [{}, {"delete_after_s": 30 * 86400}], ids=["server's time", "own time"])
async def test_what_is_retried_stays_while_it_lives_and_its_time_begins_anew(
    cluster: Cluster, keeper: Keeper, options: Any
):
    run_id = await ask(cluster, **options)
    await cluster.cancel(run_id)
    cluster.now += 29 * DAY
    await cluster.retry(run_id)
    assert await keeper.tidy_later(100 * DAY) == 0
    await cluster.cancel(run_id)
    assert await keeper.tidy_later(29 * DAY) == 0
    assert await keeper.tidy_later(2 * DAY) == 1


async def test_a_run_that_lives_stays_whatever_its_row_says_of_its_end(cluster: Cluster, keeper: Keeper):
    """A server of the version before retries without clearing it."""
    await ask(cluster)
    await ask(cluster, delete_after_s=60)
    await cluster.ask("UPDATE runs SET ended_at = '2000-01-01Z', delete_at = '2000-01-01Z', next_event = 1")
    await cluster.ask("INSERT INTO feed (run_id, n) SELECT id, 0 FROM runs")
    assert await keeper.tidy() == NOTHING


async def test_what_a_living_worker_still_holds_stays_until_it_is_settled(cluster: Cluster, keeper: Keeper):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    cluster.now += 100 * DAY
    await cluster.beat(holding=[(held.run_id, 1)])
    assert await keeper.tidy() == NOTHING
    assert (await cluster.tell(held, 2, settled=True)).ok
    assert (await keeper.tidy())["runs"] == 1


async def test_an_earlier_attempt_that_a_worker_still_holds_keeps_its_run(cluster: Cluster, keeper: Keeper):
    held = await cluster.running(attempts=2)
    await cluster.tell(held, 2, failed())
    await cluster.cancel(held.run_id)
    cluster.now += 100 * DAY
    await cluster.beat(holding=[(held.run_id, 1)])
    assert await keeper.tidy() == NOTHING


async def test_what_a_lost_worker_held_goes_and_its_late_word_is_refused(cluster: Cluster, keeper: Keeper):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    cluster.now += 100 * DAY
    await cluster.reap()
    assert (await keeper.tidy())["runs"] == 1
    await cluster.beat(holding=[(held.run_id, 1)])
    assert (await cluster.tell(held, 2, COMPLETED, settled=True)).code == "run_not_found"
    assert await cluster.slots_taken() == 0


async def test_what_is_not_published_yet_stays(cluster: Cluster, keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(publish, "BATCH", 1)
    run_id = await over(cluster, delete_after_s=0)
    for deleted in (0, 0, 1):
        assert (await keeper.tidy(publishing=False))["runs"] == deleted
        await cluster.publish()
    assert keeper.discarded == [run_id]


async def test_a_batch_has_few_runs_and_those_that_ended_first(
    cluster: Cluster, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tidy, "RUNS_AT_ONCE", 2)
    ended: list[str] = []
    for number in range(5):
        cluster.later(1)
        ended.append(await over(cluster, **({"delete_after_s": 30 * 86400} if number == 4 else {})))
    assert await keeper.tidy_later(31 * DAY) == 2
    assert set(keeper.discarded) == {ended[4], ended[0]}
    assert [(await keeper.tidy())["runs"] for _ in range(3)] == [2, 1, 0]
    assert (set(keeper.discarded), len(keeper.discarded)) == (set(ended), 5)


async def test_a_batch_has_few_events_and_one_run_in_any_case(
    cluster: Cluster, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tidy, "EVENTS_AT_ONCE", 5)
    for _ in range(3):
        cluster.later(1)
        await over(cluster)
    long = await ask(cluster)
    for _ in range(8):
        await append(cluster.database, long, Happening(E.INFO, "note"), cluster.now)
    await cluster.cancel(long)
    cluster.now += 31 * DAY
    assert [(await keeper.tidy())["runs"] for _ in range(4)] == [2, 1, 1, 0]


async def test_a_run_that_somebody_holds_is_left_and_nobody_waits(cluster: Cluster, keeper: Keeper):
    locked, free = await over(cluster), await over(cluster)

    async def while_locked(connection: Connection) -> None:
        await connection.execute("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", [locked])
        async with asyncio.timeout(10):
            assert await keeper.tidy_later(31 * DAY) == 1

    await cluster.database.transact(while_locked)
    assert keeper.discarded == [free]
    assert (await keeper.tidy())["runs"] == 1


@asynccontextmanager
async def half_way(cluster: Cluster, keeper: Keeper) -> AsyncIterator[asyncio.Task[dict[str, int]]]:
    """A batch that has locked its runs and cannot go on while this is entered."""
    await published(cluster)
    async with cluster.database.connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE log_discards IN SHARE MODE")
        tidying = asyncio.create_task(keeper.tidy(publishing=False))
        await waits(cluster, 1)
        yield tidying


async def waits(cluster: Cluster, count: int) -> None:
    """Until so many wait for a lock."""
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while len(await cluster.ask(query)) < count:
            await asyncio.sleep(0.01)


async def test_who_comes_while_a_run_is_deleted_waits_and_finds_nothing(cluster: Cluster, keeper: Keeper):
    """Those who change another run go on."""
    run_id, other = await over(cluster, delete_after_s=0), await ask(cluster)
    async with half_way(cluster, keeper) as tidying:
        await cluster.cancel(other)
        waiting = asyncio.create_task(update(cluster.database, run_id, Update(pinned=True), cluster.now))
        await waits(cluster, 2)
    assert (await tidying)["runs"] == 1
    with pytest.raises(RunNotFound):
        await waiting


async def test_a_run_that_is_retried_just_before_stays(cluster: Cluster, keeper: Keeper):
    """The row that was found is judged again once it is locked."""
    run_id = await ask(cluster, delete_after_s=0)
    await cluster.cancel(run_id)
    await published(cluster)
    assert await cluster.ask("SELECT delete_at <= %s FROM runs", cluster.now) == [(True,)]
    await cluster.retry(run_id)
    assert await cluster.ask("SELECT delete_at, ended_at FROM runs") == [(None, None)]
    assert await keeper.tidy() == NOTHING


async def test_what_breaks_off_between_rows_and_bytes_is_done_again(cluster: Cluster, keeper: Keeper):
    runs = {await over(cluster), await over(cluster)}
    cluster.now += 31 * DAY
    await published(cluster)
    gone: list[str] = []

    async def crash(run_id: str) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(run_id)

    with pytest.raises(KeyboardInterrupt):
        await tidy.tidy(cluster.database, cluster.epoch, keeper.keep_for, Shelf(crash), cluster.now)
    assert await cluster.ask("SELECT id FROM runs") == []
    assert await keeper.tidy() == {**NOTHING, "logs": 2}
    assert set(keeper.discarded) == runs


async def test_a_run_that_stays_after_all_keeps_its_log(cluster: Cluster, keeper: Keeper):
    """The database ends the transaction, and somebody pins the run before the next one."""
    run_id = await over(cluster, delete_after_s=0)
    async with half_way(cluster, keeper) as tidying:
        await cluster.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with pytest.raises(psycopg.OperationalError):
            await tidying
    await update(cluster.database, run_id, Update(pinned=True), cluster.now)
    assert await keeper.tidy() == NOTHING
    assert (keeper.discarded, await keeper.is_there(run_id)) == ([], True)


async def test_logs_that_cannot_be_deleted_hold_up_nothing_and_are_tried_again_later(cluster: Cluster, keeper: Keeper):
    stuck, _ = await over(cluster), await over(cluster)
    cluster.now += 31 * DAY
    await published(cluster)

    async def refuse(run_id: str) -> None:
        if run_id == stuck:
            raise PermissionError("not mine")

    done = await tidy.tidy(cluster.database, cluster.epoch, keeper.keep_for, Shelf(refuse), cluster.now)
    assert done == {**NOTHING, "runs": 2, "logs": 1}
    assert await cluster.ask("SELECT run_id::text FROM log_discards") == [(stuck,)]
    assert await keeper.tidy() == NOTHING
    cluster.now += timedelta(minutes=10)
    assert await keeper.tidy() == {**NOTHING, "logs": 1}
    assert keeper.discarded == [stuck]


async def test_a_server_that_no_longer_leads_deletes_nothing(cluster: Cluster, keeper: Keeper):
    run_id = await over(cluster)
    cluster.now += 31 * DAY
    for epoch in (cluster.epoch - 1, cluster.epoch + 1):
        with pytest.raises(Deposed):
            await keeper.tidy(epoch)
    await cluster.ask("UPDATE leader SET expires_at = '-infinity'")
    with pytest.raises(Deposed):
        await keeper.tidy(publishing=False)
    assert await keeper.is_there(run_id)
    assert keeper.discarded == []


async def test_leadership_is_renewed_and_runs_are_placed_while_it_takes_its_time(cluster: Cluster, keeper: Keeper):
    await over(cluster, delete_after_s=0)
    await published(cluster)
    await cluster.beat()
    await cluster.submit()
    async with half_way(cluster, keeper) as tidying, asyncio.timeout(10):
        assert await leadership.hold(cluster.database, "test", cluster.epoch) == cluster.epoch
        assert await cluster.place() == 1
    assert (await tidying)["runs"] == 1


async def test_answers_are_forgotten_when_their_time_is_over(
    cluster: Cluster, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tidy, "ANSWERS_AT_ONCE", 2)

    async def answer(connection: Connection) -> Reply:
        return Answer(201, b"{}")

    for key in ("a", "b", "c"):
        await once(cluster.database, Asked("test", key, b""), answer, cluster.now)
    cluster.now += DAY - timedelta(seconds=1)
    assert await keeper.tidy() == NOTHING
    await once(cluster.database, Asked("test", "d", b""), answer, cluster.now)
    cluster.now += timedelta(seconds=1)
    assert [(await keeper.tidy())["answers"] for _ in range(3)] == [2, 1, 0]
    assert await cluster.ask("SELECT key FROM idempotency") == [("d",)]


async def test_pages_go_on_while_runs_are_deleted_and_a_cursor_that_went_is_named(cluster: Cluster, keeper: Keeper):
    runs: list[str] = []
    for number in range(6):
        cluster.later(1)
        runs.append(await over(cluster, **({"delete_after_s": 0} if number in (1, 4) else {})))
    first = await page(cluster.database, Filters(), 2)
    assert [run.id for run in first.runs] == [runs[5], runs[4]]
    await keeper.tidy()
    with pytest.raises(InvalidQuery, match=f"starting_after: OpRun '{runs[4]}' not found"):
        await page(cluster.database, Filters(), 2, starting_after=runs[4])
    rest = await page(cluster.database, Filters(), 10, starting_after=runs[5])
    assert [run.id for run in rest.runs] == [runs[3], runs[2], runs[0]]
    before = await page(cluster.database, Filters(), 10, ending_before=runs[0])
    assert [run.id for run in before.runs] == [runs[5], runs[3], runs[2]]


async def test_a_run_is_not_held_up_by_others_that_are_tidied(cluster: Cluster, keeper: Keeper):
    """Who changes many runs at once, and they are deleted meanwhile, goes on with the rest."""
    going, staying = await over(cluster, delete_after_s=0), await ask(cluster)
    await keeper.tidy()

    async def work(connection: Connection) -> list[Any]:
        changes = [Change(going, cancelled), Change(staying, cancelled)]
        return list((await change_all(connection, changes, cluster.now))[0])

    gone, done = await cluster.database.transact(work)
    assert isinstance(gone, RunNotFound)
    assert done.state == "CANCELLED"
