"""Step 0002 over a database in which a server of step 0001 has worked, and that goes on working afterwards."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gyoza.control import deploy, leadership
from gyoza.control.query import Filters, get, page
from gyoza.control.reap import reap
from gyoza.models.definition import RetryPolicy
from gyoza.policy.liveness import Pace
from gyoza.store import queue, retention
from gyoza.store.database import Database
from gyoza.store.schema import MIGRATIONS, migrate
from gyoza.store.upgrade import upgrade

from .release_1 import Row, Server

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LONG_NAME = "".join(chr(0x4E00 + number * 37 % 20000) for number in range(5000))
RUNS = (
    *("waits", "tagged", "again", "handed", "hurried", "confirmed", "held", "outside", "free", "nameless"),
    *("done", "failed", "cancelled"),
)
IDS = {name: f"01890000-0000-7000-8000-{number:012}" for number, name in enumerate(RUNS)}
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}
NAMES = {run_id: name for name, run_id in IDS.items()}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture(params=["embedded", "oldest"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database at step 0001, on the embedded PostgreSQL and on the oldest that is supported."""
    main = request.getfixturevalue("postgres" if request.param == "embedded" else "oldest")
    with psycopg.connect(main, autocommit=True) as connection:
        connection.execute("CREATE DATABASE first_step")
    url, steps = make_conninfo(main, dbname="first_step"), tmp_path / "migrations"
    (steps / "versions").mkdir(parents=True)
    shutil.copy(MIGRATIONS / "env.py", steps)
    shutil.copy(MIGRATIONS / "versions" / "0001_foundations.py", steps / "versions")
    upgrade(url, steps)
    yield url
    with psycopg.connect(main, autocommit=True) as connection:
        connection.execute("DROP DATABASE first_step WITH (FORCE)")


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    """One of step 0001, over a database in which it has worked already."""
    with psycopg.connect(url, autocommit=True) as connection:
        server = Server(connection)
        work(server)
        yield server


@pytest.fixture
async def migrated(url: str, server: Server) -> AsyncIterator[Database]:
    migrate(url)
    async with Database(url) as database:
        yield database


def work(server: Server) -> None:
    """A run in every state, and definitions with revisions that took turns."""
    server.beat("w1", 1, NOW)
    for second, (digest, version) in enumerate(
        [("a", "1"), ("b", "1"), ("c", "2"), ("d", None), ("e", None), ("a", "1")]
    ):
        server.deploy("op", version, digest, {"id": "op", "version": version, "image": digest}, at(second))
    server.deploy("other", None, "a", {"id": "other", "image": "a"}, NOW)
    limits = {"queue_s": 100, "start_s": None, "run_s": 30}
    said: dict[str, Row] = {
        "waits": {"priority": 7, "timeouts": limits},
        "tagged": {"tags": ["b", "a", "b"]},
        "again": {"timeouts": limits, "max_attempts": 2},
        "hurried": {"timeouts": {"queue_s": None, "start_s": 5.5, "run_s": None}},
        "held": {"timeouts": limits},
        "outside": {"timeouts": limits},
        "done": {"op_definition": "op", "revision": 2, "version": "1", "timeouts": limits},
    }
    for second, name in enumerate(RUNS):
        priority = said.get(name, {}).get("priority", 5)
        entered = at(second) - timedelta(hours=priority)
        server.submit({"id": IDS[name], "created_at": at(second), "queue_at": entered, **said.get(name, {})})
    move(server, "again", 20, ["ASSIGNED", "STARTED", "FAILED"], "FAILED", reason="op_error", started_at=at(20))
    reopen(server, "again", 30)
    for name in ("handed", "hurried"):
        move(server, name, 20, ["ASSIGNED"], "ASSIGNED")
    move(server, "confirmed", 20, ["ASSIGNED"], "ASSIGNED", acknowledged_at=at(21))
    move(server, "held", 20, ["ASSIGNED", "STARTED"], "RUNNING", acknowledged_at=at(21), started_at=at(22))
    for name, says in (("outside", "mine"), ("free", LONG_NAME), ("nameless", "")):
        move(server, name, 20, ["STARTED"], "RUNNING", holder=None, started_at=at(20), summary={"worker_id": says})
    move(server, "done", 20, ["ASSIGNED", "STARTED", "COMPLETED"], "COMPLETED", started_at=at(20), outputs={"y": 1})
    move(server, "failed", 20, ["ASSIGNED", "FAILED"], "FAILED", reason="image_not_found")
    move(server, "cancelled", 20, ["CANCELLED"], "CANCELLED", holder=None, reason="cancelled")


def move(
    server: Server, name: str, second: int, types: list[str], state: str, *, holder: str | None = "w1", **more: Any
) -> None:
    """The first attempt of a run goes so far, held by a worker or not."""
    held = {"held_by": holder, "lease_token": "t", "assigned_at": at(second)} if holder else {}
    over = {"finished_at": at(second + 5), "settled_at": at(second + 5)} if state in TERMINAL else {}
    attempt = {"attempt": 1, "state": state, **held, **over, **more}
    server.change(at(second), {"id": IDS[name], "state": state}, [attempt], types)


def reopen(server: Server, name: str, second: int) -> None:
    """Its second attempt waits."""
    run = {"id": IDS[name], "state": "PENDING", "current_attempt": 2, "queue_at": at(second) - timedelta(hours=5)}
    server.change(at(second), run, [{"attempt": 2, "state": "PENDING"}], ["RETRIED"])


async def ask(database: Database, query: str, *values: Any) -> list[Any]:
    async with database.connection() as connection:
        cursor = await connection.execute(query.encode(), values)
        return await cursor.fetchall()


async def of_each(database: Database, column: str) -> dict[str, Any]:
    """A column of each run, or of its current attempt; the ids as names, those with null left out."""
    query = f"SELECT r.id, {column} FROM runs r JOIN attempts a ON a.run_id = r.id AND a.attempt = r.current_attempt"
    return {NAMES[run_id]: value for run_id, value in await ask(database, query) if value is not None}


async def test_every_run_shows_what_it_showed_before(url: str, server: Server):
    before = {name: server.show(run_id) for name, run_id in IDS.items()}
    migrate(url)
    async with Database(url) as database:
        for name, run_id in IDS.items():
            run = await get(database, run_id)
            assert (run.state, run.current_attempt, run.reason) == before[name]
            assert (run.pinned, run.delete_after_s, run.replay_of, run.run_at) == (False, None, None, None)
            assert replace(run.retry_policy, max_attempts=1) == RetryPolicy()
        assert {name: server.show(run_id) for name, run_id in IDS.items()} == before


async def test_runs_are_found_by_what_they_showed(migrated: Database):
    async def found(**filters: Any) -> set[str]:
        runs = (await page(migrated, Filters(**filters), 100)).runs
        return {NAMES[run.id] for run in runs}

    assert await found() == set(RUNS)
    assert await found(tags=("a",)) == await found(tags=("b", "a")) == {"tagged"}
    assert await found(worker_id="w1") == {"handed", "hurried", "confirmed", "held", "done", "failed"}
    assert await found(worker_id="mine") == {"outside"}
    assert await found(reason="image_not_found") == {"failed"}
    assert await found(reason="cancelled") == {"cancelled"}
    assert await found(op_definition="op") == {"done"}


async def test_what_is_over_ended_when_its_last_attempt_did_and_is_kept_from_then_on(migrated: Database):
    assert await of_each(migrated, "r.ended_at") == dict.fromkeys(("done", "failed", "cancelled"), at(25))
    assert await of_each(migrated, "r.delete_at") == {}
    assert set((await of_each(migrated, "r.due")).values()) == {True}
    async with migrated.connection() as connection:
        assert await retention.lock_due(connection, at(25), at(0), 100, 100) == []
        due = await retention.lock_due(connection, at(26), at(0), 100, 100)
    assert {NAMES[run_id] for run_id in due} == {"done", "failed", "cancelled"}


async def test_limits_count_from_when_each_state_was_entered(migrated: Database):
    assert await of_each(migrated, "a.deadline") == {
        "waits": at(0 + 100),
        "again": at(30 + 100),
        "handed": at(20 + 60),
        "hurried": at(20 + 5.5),
        "held": at(22 + 30 + 60),
        "outside": at(20 + 30),
    }


async def test_the_feed_begins_with_what_happened_in_its_order(migrated: Database):
    feed = await ask(migrated, "SELECT run_id, n FROM feed ORDER BY pos")
    assert feed == await ask(migrated, "SELECT run_id, n FROM events ORDER BY t, run_id, n")
    assert len(feed) == 18
    assert await ask(migrated, "SELECT * FROM outbox") == []


async def test_the_revision_of_each_version_that_was_deployed_last_is_the_newest(migrated: Database, server: Server):
    shown = [msgspec.json.decode(msgspec.json.encode(each)) for each in await deploy.every(migrated)]
    newest = [await deploy.latest(migrated, *name) for name in (("op", "1"), ("op", "2"), ("other", None))]
    assert [shown[0], shown[1], shown[3]] == [each.to_dict() for each in newest]
    listed = [(each["id"], each["version"], each["revision"]) for each in shown]
    assert listed == [("op", "1", 1), ("op", "2", 3), ("op", None, 5), ("other", None, 1)] == server.definitions()
    assert [each.revision for each in await deploy.history(migrated, "op")] == [1, 5, 4, 3, 2]
    await deploy.disable(migrated, "op", NOW)
    await deploy.delete(migrated, "other", NOW)
    assert {each["disabled"] for each in await deploy.every(migrated)} == {True}
    assert len(await deploy.every(migrated)) == 3


async def test_a_server_of_the_step_before_goes_on(migrated: Database, server: Server):
    """All that it says is understood, and what it does is seen by the servers of this step."""
    server.beat("w1", 2, at(40))
    server.beat("w2", 1, at(40))
    fresh = "01890000-0000-7000-8000-000000000099"
    server.submit({"id": fresh, "created_at": at(40), "queue_at": at(40) - timedelta(hours=5), "tags": ["new"]})
    assert set(server.queue(at(40))) == {IDS["waits"], IDS["tagged"], IDS["again"], fresh}
    async with migrated.connection() as connection:
        assert {each.run_id for each in await queue.window(connection)} == set(server.queue(at(40)))
    assert server.unacknowledged(at(100)) == [IDS["handed"], IDS["hurried"]]
    server.reprioritise(IDS["tagged"], 9, at(1) - timedelta(hours=9), at(41))
    move(server, "waits", 41, ["ASSIGNED", "STARTED", "COMPLETED"], "COMPLETED", started_at=at(41))
    move(server, "confirmed", 41, ["FAILED"], "FAILED", reason="op_error", acknowledged_at=at(21))
    reopen(server, "failed", 42)
    assert server.deploy("op", "1", "z", {"id": "op", "version": "1"}, at(43)) == 6
    assert server.deploy("fresh", None, "a", {"id": "fresh"}, at(43)) == 1
    for run_id in (*IDS.values(), fresh):
        run = await get(migrated, run_id)
        assert (run.state, run.current_attempt, run.reason) == server.show(run_id)
    assert (await deploy.latest(migrated, "op", "1")).revision == 6
    assert {bytes(each["id"]) for each in await deploy.every(migrated)} == {b'"op"', b'"other"', b'"fresh"'}


async def test_what_it_moves_is_not_ended_by_a_limit_of_the_state_before(migrated: Database, server: Server):
    for name in ("handed", "waits"):
        move(server, name, 40, ["STARTED"], "RUNNING", acknowledged_at=at(40), started_at=at(40))
    server.beat("w1", 2, at(105))
    epoch = await leadership.hold(migrated, "test", None)
    assert epoch is not None
    await reap(migrated, epoch, Pace(), at(105))
    assert {name: (await get(migrated, IDS[name])).state for name in ("handed", "waits", "hurried", "outside")} == {
        "handed": "RUNNING",
        "waits": "RUNNING",
        "hurried": "PENDING",
        "outside": "FAILED",
    }
    limits = await of_each(migrated, "a.deadline")
    assert "handed" not in limits
    assert limits["waits"] == at(40 + 30 + 60)


async def test_what_it_retries_is_not_deleted_while_it_lives(migrated: Database, server: Server):
    reopen(server, "failed", 40)
    await ask(migrated, "INSERT INTO feed (run_id, n) VALUES (%s, 2) RETURNING pos", IDS["failed"])
    assert (await of_each(migrated, "r.ended_at"))["failed"] == at(25)
    async with migrated.connection() as connection:
        due = await retention.lock_due(connection, at(100), at(100), 100, 100)
    assert {NAMES[run_id] for run_id in due} == {"done", "cancelled"}


async def test_it_lets_a_run_wait_that_pauses(migrated: Database, server: Server):
    await ask(migrated, "UPDATE runs SET run_at = %s, due = false WHERE id = %s RETURNING id", at(100), IDS["tagged"])
    assert IDS["tagged"] not in server.queue(at(99))
    assert IDS["tagged"] in server.queue(at(100))
