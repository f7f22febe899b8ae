"""What is read of the feed and of a run: the same events, with the state that each led to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.control import feed
from gyoza.control.append import append
from gyoza.models.errors import Refusal, RunNotFound
from gyoza.models.lifecycle import EventType as E
from gyoza.models.lifecycle import OpRunState as S
from gyoza.models.lifecycle import next_state
from gyoza.policy.life import Happening
from gyoza.store.database import Database

from .stage import COMPLETED, STARTED, Cluster, failed

NOTE = Happening(E.INFO, "x")
COURSES = st.lists(st.sampled_from([E.STARTED, E.INFO, E.ERROR, E.PROGRESS, E.FAILED, E.CANCELLED, E.RETRIED]))


async def everything(cluster: Cluster) -> list[feed.Entry]:
    page = await feed.page(cluster.database, 0, lambda position: True)
    assert not page.has_more
    return list(page.entries)


async def test_an_entry_has_what_a_reader_needs(cluster: Cluster):
    held = await cluster.running()
    await cluster.publish()
    assigned, started = await everything(cluster)
    assert (assigned.run_id, assigned.op_definition, assigned.tags) == (held.run_id, None, [])
    assert (assigned.event.id, assigned.event.type, assigned.state, assigned.is_newest) == (
        0,
        E.ASSIGNED,
        S.ASSIGNED,
        False,
    )
    assert (started.event.id, started.event.type, started.state, started.is_newest) == (1, E.STARTED, S.RUNNING, True)
    assert assigned.pos < started.pos


@given(course=COURSES)
async def test_the_state_after_each_event_is_that_of_the_table(still_database: Database, course: list[E]):
    cluster = Cluster(still_database)
    run_id, state, states = await cluster.submit(), S.PENDING, list[S]()
    for kind in course:
        try:
            state = next_state(state, kind)
            await append(cluster.database, run_id, Happening(kind, 5 if kind is E.PROGRESS else ""), cluster.now)
        except Refusal:
            continue
        states.append(state)
    page = await feed.page_of_run(cluster.database, run_id, -1)
    assert [entry.state for entry in page.entries] == states
    assert [entry.is_newest for entry in page.entries] == [n == len(states) - 1 for n in range(len(states))]


async def test_a_run_that_is_tried_again_at_once_is_not_over(cluster: Cluster):
    held = await cluster.running(attempts=2)
    await cluster.tell(held, 2, failed())
    page = await feed.page_of_run(cluster.database, held.run_id, 1)
    assert [(entry.state, entry.is_end) for entry in page.entries] == [(S.FAILED, False), (S.PENDING, False)]
    assert not await feed.is_told(cluster.database, held.run_id, 3)


async def test_all_is_told_once_the_run_is_over_and_its_last_event_read(cluster: Cluster):
    held = await cluster.running()
    await cluster.tell(held, 2, COMPLETED)
    page = await feed.page_of_run(cluster.database, held.run_id, -1)
    assert [entry.is_end for entry in page.entries] == [False, False, True]
    assert [await feed.is_told(cluster.database, held.run_id, n) for n in (-1, 1, 2, 9)] == [False, False, True, True]
    for unknown in ("x", held.run_id.upper(), "01890000-0000-7000-8000-000000000000"):
        with pytest.raises(RunNotFound):
            await feed.is_told(cluster.database, unknown, -1)


async def test_pages_follow_each_other_over_the_holes_that_deleted_runs_leave(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(feed, "PAGE", 3)
    first, deleted, last = [await cluster.submit() for _ in range(3)]
    for run_id in (first, deleted, deleted, deleted, deleted, deleted, last):
        await append(cluster.database, run_id, NOTE, cluster.now)
    await cluster.publish()
    await cluster.ask("DELETE FROM runs WHERE id = %s", deleted)
    page = await feed.page(cluster.database, 0, lambda position: True)
    assert ([entry.run_id for entry in page.entries], page.has_more, page.gone) == ([first], True, {deleted})
    page = await feed.page(cluster.database, page.upto, lambda position: True)
    assert (page.entries, page.has_more, page.gone) == ([], True, {deleted})
    await cluster.ask("DELETE FROM feed WHERE run_id = %s", deleted)
    page = await feed.page(cluster.database, page.upto - 1, lambda position: True)
    assert ([entry.run_id for entry in page.entries], page.has_more, page.gone) == ([last], False, frozenset())


async def test_only_what_is_wanted_is_read(cluster: Cluster):
    runs = [await cluster.submit() for _ in range(3)]
    for run_id in runs:
        await append(cluster.database, run_id, STARTED, cluster.now)
    await cluster.publish()
    page = await feed.page(cluster.database, 0, lambda position: position.run_id == runs[1])
    assert [entry.run_id for entry in page.entries] == [runs[1]]
    assert page.upto == await feed.newest(cluster.database)


async def test_an_empty_feed_is_read_to_its_beginning(cluster: Cluster):
    assert await feed.newest(cluster.database) == 0
    assert await feed.page(cluster.database, 0, lambda position: True) == feed.Page([], 0, False)
