"""Step 0003 over a database in which a server of step 0002 has worked, and that goes on working afterwards."""

import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gyoza.control import leadership, trust, workforce
from gyoza.control.query import get
from gyoza.control.reap import reap
from gyoza.policy.liveness import Pace
from gyoza.policy.quarantine import SHORTEST, Cause, Quarantine
from gyoza.store import workers
from gyoza.store.database import Database
from gyoza.store.schema import MIGRATIONS, migrate
from gyoza.store.upgrade import upgrade

from .release_2 import Server

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PATIENT = {"id": "op", "execution": {"server_lost_s": 100}}
IDS = [f"01890000-0000-7000-8000-{number:012}" for number in range(21)]
HELD = IDS[20]


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture(params=["embedded", "oldest"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database at step 0002, on the embedded PostgreSQL and on the oldest that is supported."""
    main = request.getfixturevalue("postgres" if request.param == "embedded" else "oldest")
    with psycopg.connect(main, autocommit=True) as connection:
        connection.execute("CREATE DATABASE second_step")
    url, steps = make_conninfo(main, dbname="second_step"), tmp_path / "migrations"
    (steps / "versions").mkdir(parents=True)
    shutil.copy(MIGRATIONS / "env.py", steps)
    for step in ("0001_foundations.py", "0002_contract.py"):
        shutil.copy(MIGRATIONS / "versions" / step, steps / "versions")
    upgrade(url, steps)
    yield url
    with psycopg.connect(main, autocommit=True) as connection:
        connection.execute("DROP DATABASE second_step WITH (FORCE)")


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    """One of step 0002. Ten runs failed on w1, ten went well on w2, and w1 runs another one of a patient op."""
    with psycopg.connect(url, autocommit=True) as connection:
        server = Server(connection)
        for worker in ("w1", "w2", "drained", "gone"):
            server.beat(worker, 1, NOW)
        server.drain("drained", True)
        server.forget("gone", NOW)
        server.deploy("op", None, "a", PATIENT, NOW)
        for number, run_id in enumerate(IDS[:20]):
            end(server, run_id, at(number), "w1" if number % 2 else "w2")
        server.submit({"id": HELD, "created_at": NOW, "queue_at": NOW, "op_definition": "op", "revision": 1})
        held = {"held_by": "w1", "lease_token": "t", "assigned_at": NOW, "acknowledged_at": NOW, "started_at": NOW}
        run(server, NOW, HELD, "RUNNING", ["ASSIGNED", "STARTED"], **held)
        yield server


def run(server: Server, now: datetime, run_id: str, state: str, types: list[str], **attempt: Any) -> None:
    server.change(now, {"id": run_id, "state": state}, [{"attempt": 1, "state": state, **attempt}], types)


def end(server: Server, run_id: str, now: datetime, worker: str) -> None:
    """A run that fails on w1, and completes elsewhere."""
    state, reason = ("FAILED", "disk_full") if worker == "w1" else ("COMPLETED", None)
    server.submit({"id": run_id, "created_at": now, "queue_at": now})
    held = {"held_by": worker, "lease_token": "t", "assigned_at": now, "acknowledged_at": now, "started_at": now}
    over = {"finished_at": now, "settled_at": now, "reason": reason}
    run(server, now, run_id, state, ["ASSIGNED", "STARTED", state], **held, **over)


@pytest.fixture
async def migrated(url: str, server: Server) -> AsyncIterator[Database]:
    migrate(url)
    async with Database(url) as database:
        yield database


async def epoch_of(database: Database) -> int:
    epoch = await leadership.hold(database, "test", None)
    assert epoch is not None
    return epoch


async def shown(database: Database, worker: str) -> workers.Worker:
    return (await workforce.one(database, worker, Pace(), at(25))).worker


async def test_nobody_is_in_quarantine_and_nobody_is_waited_for(url: str, server: Server):
    before = {worker: server.shown(worker) for worker in ("w1", "w2", "drained", "gone")}
    migrate(url)
    assert {worker: server.shown(worker) for worker in before} == before
    async with Database(url) as database:
        assert [(await shown(database, worker)).quarantine for worker in ("w1", "w2", "drained")] == [None] * 3
        async with database.connection() as connection:
            assert await workers.silent(connection, NOW - timedelta(days=1), at(10_000)) == []
            assert {room.worker_id for room in await workers.rooms(connection, NOW)} == {"w1", "w2"}


async def test_what_ended_before_counts(migrated: Database):
    assert await trust.judge(migrated, await epoch_of(migrated), at(25)) == {
        "judged": 1,
        "readmitted": 0,
        "quarantined": 1,
    }
    quarantine = (await shown(migrated, "w1")).quarantine
    assert quarantine is not None
    assert (quarantine.cause, quarantine.until) == (Cause.BROKEN, at(25) + SHORTEST)


async def test_what_runs_is_waited_for_as_long_as_its_op_says(migrated: Database):
    epoch = await epoch_of(migrated)
    await reap(migrated, epoch, Pace(), at(25))
    assert (await get(migrated, HELD)).state == "RUNNING"
    await reap(migrated, epoch, Pace(), at(100))
    assert (await get(migrated, HELD)).reason is None
    assert (await get(migrated, HELD)).current_attempt == 2


async def test_a_server_of_the_step_before_goes_on(migrated: Database, server: Server):
    """It knows of no quarantine and waits for nobody, and what it does is understood."""
    epoch = await epoch_of(migrated)
    await trust.judge(migrated, epoch, at(25))
    assert server.rooms() == ["w1", "w2"]
    server.beat("w1", 2, at(30))
    server.drain("w1", True)
    server.drain("w1", False)
    assert isinstance((await shown(migrated, "w1")).quarantine, Quarantine)
    end(server, "01890000-0000-7000-8000-000000000099", at(31), "w1")
    assert server.overdue(at(60)) == []
    assert server.silent(at(20)) == ["drained", "w2"]
    server.evict("w2", at(40))
    server.forget("w1", at(41))
    server.beat("w1", 3, at(42))
    assert server.shown("w1") == (False, False, False)
    assert await trust.judge(migrated, epoch, at(45)) == {"judged": 1, "readmitted": 1, "quarantined": 0}


async def test_a_worker_that_it_hears_again_is_waited_for_no_longer(migrated: Database, server: Server):
    """It leaves behind until when the worker was waited for."""
    epoch = await epoch_of(migrated)
    await reap(migrated, epoch, Pace(), at(25))
    server.beat("w1", 2, at(30))
    await reap(migrated, epoch, Pace(), at(50))
    server.beat("w1", 3, at(60))
    for second in (70, 80, 100, 110):
        server.beat("w1", 4 + second, at(second))
        await reap(migrated, epoch, Pace(), at(second))
    assert (await get(migrated, HELD)).current_attempt == 1
