"""The oldest PostgreSQL that we support, where this system has it: migration, and a life from submit to the end."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

from gyoza.control.workforce import drain, every
from gyoza.store.database import Database
from gyoza.store.schema import OLDEST_SUPPORTED, migrate

from .stage import COMPLETED, Cluster, Still, failed
from .test_submit import ADD, ask_for

PROGRAMS = Path(f"/usr/lib/postgresql/{OLDEST_SUPPORTED}/bin")

pytestmark = pytest.mark.skipif(not PROGRAMS.is_dir(), reason=f"this system has no PostgreSQL {OLDEST_SUPPORTED}")


def unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def oldest() -> Iterator[str]:
    """The URL of an empty database of the oldest PostgreSQL."""
    folder, account = Path(tempfile.mkdtemp(prefix="oldest-", dir="/tmp")), unprivileged()
    os.chown(folder, account.get("user", -1), account.get("group", -1))
    how: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **account}
    initdb = ["initdb", "-D", "data", "-U", "gyoza", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
    subprocess.run([PROGRAMS / initdb[0], *initdb[1:]], check=True, **how)
    settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
    with subprocess.Popen([PROGRAMS / "postgres", "-D", "data", *settings], **how) as server:
        url = f"postgresql://gyoza@/postgres?host={folder}"
        try:
            wait_for(url)
            yield url
        finally:
            server.send_signal(signal.SIGINT)
    shutil.rmtree(folder)


def wait_for(url: str) -> None:
    deadline = monotonic() + 20
    while monotonic() < deadline:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
        sleep(0.05)
    raise AssertionError("it did not start in time")


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
