"""The small tables, and what no use case shows of the others."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from gyoza.models.resources import Constraints
from gyoza.store import cluster, definitions, files, new_runs, queue, runs
from gyoza.store.database import Connection, Database
from gyoza.store.files import File
from gyoza.store.ids import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def undone(shelf: Database) -> AsyncIterator[Connection]:
    """A connection whose work is undone at the end."""
    async with shelf.connection() as connection, connection.transaction(force_rollback=True):
        await connection.execute("DELETE FROM runs")
        yield connection


def file(name: str = "a.txt", sha256: str = "aa") -> File:
    return File(new_id(NOW), sha256, name, "text/plain", 3, NOW)


async def test_the_same_bytes_under_the_same_name_are_one_file(undone: Connection):
    first = file()
    assert await files.keep(undone, first) == (first, True)
    assert await files.keep(undone, file()) == (first, False)
    assert (await files.keep(undone, file("b.txt")))[1]


async def test_bytes_are_needed_while_any_file_has_them(undone: Connection):
    first, second = file(), file("b.txt")
    await files.keep(undone, first)
    await files.keep(undone, second)
    assert not await files.delete(undone, first)
    assert await files.delete(undone, second)
    assert await files.get(undone, first.id) is None


async def test_a_cluster_has_an_identity_that_stays(undone: Connection):
    identity = await cluster.identity(undone)
    assert str(UUID(identity)) == identity
    assert await cluster.identity(undone) == identity


def test_ids_are_uuids_of_version_7_that_sort_by_their_time():
    ids = [new_id(NOW + timedelta(milliseconds=n)) for n in range(50)]
    assert ids == sorted(ids)
    assert {(UUID(each).version, UUID(each).variant) for each in ids} == {(7, "specified in RFC 4122")}
    assert len({new_id(NOW) for _ in range(1000)}) == 1000


async def test_revisions_count_up_and_the_one_deployed_last_is_the_latest(undone: Connection):
    async def deployed(digest: str, version: str | None, second: int) -> int:
        at = NOW + timedelta(seconds=second)
        revision, _ = await definitions.deploy(undone, "op", version, digest, "{}", at)
        return revision.revision

    assert [await deployed("a", "1", 0), await deployed("b", "2", 1), await deployed("c", None, 2)] == [1, 2, 3]
    assert await deployed("a", "1", 3) == 1
    assert (await definitions.latest(undone, "op") or pytest.fail()).revision == 1
    assert (await definitions.latest(undone, "op", "2") or pytest.fail()).revision == 2
    assert await definitions.latest(undone, "op", "3") is None
    assert await definitions.latest(undone, "none") is None
    assert [each.revision for each in await definitions.history(undone, "op")] == [1, 3, 2]
    assert {each.revision for each in await definitions.newest_of_each(undone) if each.name == "op"} == {1, 2, 3}


async def waits(connection: Connection, minutes: int, cpu_m: int | None, *engines: str) -> str:
    run_id = new_id(NOW)
    at = NOW + timedelta(minutes=minutes)
    run = new_runs.NewRun(run_id, at, 5, {}, Constraints(cpu_m), engines or ("docker",))
    await new_runs.insert(connection, [run])
    return run_id


async def test_the_window_shows_the_first_few_of_every_shape(undone: Connection):
    small = [await waits(undone, minutes, 1) for minutes in (3, 1, 2)]
    big = [await waits(undone, minutes, 2) for minutes in (9, 8)]
    plain = await waits(undone, 5, None)
    other = await waits(undone, 5, None, "docker", "process")
    seen = await queue.window(undone, per_shape=2)
    assert {each.run_id for each in seen} == {small[1], small[2], *big, plain, other}
    assert {each.run_id: each.engines for each in seen}[other] == {"docker", "process"}


async def test_an_empty_queue_shows_nothing(undone: Connection):
    assert await queue.window(undone) == []


async def test_many_runs_are_made_in_one(undone: Connection):
    made = [new_runs.NewRun(new_id(NOW), NOW, 5, {"n": n}, Constraints(), ("docker",)) for n in range(500)]
    await new_runs.insert(undone, made)
    cursor = await undone.execute("SELECT count(*), count(DISTINCT run_id) FROM attempts WHERE state = 'PENDING'")
    assert await cursor.fetchone() == (500, 500)


async def test_unknown_runs_are_not_locked(undone: Connection):
    assert await runs.lock(undone, []) == {}
    assert await runs.lock(undone, [new_id(NOW)]) == {}


async def test_the_window_is_bounded_and_shows_the_first_of_every_shape_before_the_second_of_any(
    undone: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue, "MOST", 4)
    many = [await waits(undone, minutes, 1) for minutes in range(3)]
    late = [await waits(undone, 60 + cpu, cpu) for cpu in (2, 3)]
    assert [each.run_id for each in await queue.window(undone)] == [many[0], *late, many[1]]
