"""How attempts end, told apart: every ending provoked for real, on both engines where both can come to it."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.worker.engines.process import Process

from .cluster import Cluster, Line, Object, working
from .fixtures import contained, remove_images

pytestmark = pytest.mark.timeout(120)

ENGINES = ["process", pytest.param("docker", marks=pytest.mark.docker)]
SMALL = {"cpu": 0.5, "ram_mb": 64}
LARGE = {"cpu": 1, "ram_mb": 400}
HOARDS = "python3 -S -c 'hoard = b\"x\" * (300 * 2**20); import time; time.sleep(600)'"
USES = """
import time
hold = bytearray(200 * 2**20)
hold[::4096] = b"x" * len(hold[::4096])
while time.process_time() < 1:
    pass
print('{"type": "INFO", "msg": "used"}', file=open(io / "events.ndjson", "a"), flush=True)
"""


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def shared(request: pytest.FixtureRequest, kind: str) -> Cluster:
    return request.getfixturevalue("contained_cluster" if kind == "docker" else "shared_cluster")


@pytest.fixture
async def both(shared: Cluster, quiet_loop: None) -> AsyncIterator[Cluster]:
    """A worker on either engine; after each test it has nothing left."""
    yield shared
    await shared.until(lambda: shared.agent.is_idle, "the worker to be idle")
    assert shared.leftovers == []


def summary(run: Object) -> tuple[str | None, int | None, int | None]:
    return run["reason"], run["execution_summary"]["exit_code"], run["execution_summary"]["signal"]


async def test_an_exit_code_and_a_signal_are_no_memory_kill(both: Cluster) -> None:
    """Not even those that a memory kill would leave."""
    assert summary(await both.run("exit 3")) == ("op_error", 3, None)
    assert summary(await both.run("kill -SEGV $$")) == ("op_error", 139, 11)
    assert summary(await both.run("kill -KILL $$", constraints=SMALL)) == ("op_error", 137, 9)
    reason, code, _ = summary(await both.run("exit 137", constraints=SMALL))
    assert (reason, code) == ("op_error", 137)


async def test_the_memory_limit_is_named(both: Cluster) -> None:
    run = await both.run(f"exec {HOARDS}", constraints=SMALL)
    assert summary(run) == ("oom_killed", 137, 9)
    assert run["execution_summary"]["error_message"] == "It used more than its 64 MB of memory (constraints.ram_mb)"
    assert run["execution_summary"]["peak_ram_mb"] >= 64


async def test_the_memory_limit_is_named_when_a_child_was_killed_and_its_parent_fails_of_it(both: Cluster) -> None:
    reason, code, _ = summary(await both.run(f"{HOARDS} || exit 1", constraints=SMALL))
    assert reason == "oom_killed" and code != 0


@pytest.mark.docker
@pytest.mark.parametrize("kind", ["docker"], indirect=True)
async def test_a_parent_that_bears_the_memory_kill_of_its_child_completes(both: Cluster) -> None:
    run = await both.run(f"{HOARDS}; echo '{{\"code\": '$?'}}' >$GYOZA_IO_DIR/outputs.json", constraints=SMALL)
    assert (run["state"], run["outputs"]) == ("COMPLETED", {"code": 137})


async def test_a_queue_that_was_too_long_is_named(cluster: Cluster) -> None:
    run = await cluster.run(timeouts={"queue_s": 0.2}, constraints={"cpu": 10_000})
    assert summary(run) == ("queue_timeout", None, None)


async def test_each_time_that_was_over_is_named(both: Cluster) -> None:
    """`start_s` until it has started, `run_s` while it runs."""
    assert summary(await both.run("sleep 600", timeouts={"run_s": 0.5}))[0] == "run_timeout"
    run = await both.run(timeouts={"start_s": 0.001})
    assert (run["reason"], run["infra_losses"], run["user_failures"]) == ("start_timeout", 5, 0)
    assert "0.001 s" in run["execution_summary"]["error_message"]


async def test_outputs_that_are_not_what_was_promised_are_named(both: Cluster) -> None:
    run = await both.run('echo \'{"y": "1"}\' >$GYOZA_IO_DIR/outputs.json', output_specs={"y": {"type": "int"}})
    assert summary(run) == ("invalid_output", 0, None)
    assert "y" in run["execution_summary"]["error_message"]


async def test_a_start_that_the_worker_cannot_make_costs_the_user_nothing(both: Cluster) -> None:
    attempts = both.place.folder / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    attempts.rename(attempts.with_name("put away"))
    attempts.write_text("not a folder")
    run = await both.run()
    attempts.unlink()
    attempts.with_name("put away").rename(attempts)
    assert (run["reason"], run["infra_losses"], run["user_failures"]) == ("start_failed", 5, 0)


@contextmanager
def small_disk(folder: Path, **options: str) -> Iterator[None]:
    """A file system of its own there, with room for next to nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    how = ",".join(f"{name}={value}" for name, value in options.items())
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "gyoza-test", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


SMALL_PLACES: dict[str, tuple[str, dict[str, str], str]] = {
    "too little for an attempt": ("attempts", {"size": "32m"}, "Less than 64 MB are free"),
    "none for a folder": ("attempts", {"size": "128m", "nr_inodes": "2"}, "No space left"),
    "none for a bundle": ("bundles", {"nr_inodes": "1"}, "No space left"),
    "none for an environment": ("environments", {"nr_inodes": "4"}, "No space left"),
    "none for a program's own folder": ("runs", {"nr_inodes": "2"}, "No space left"),
}
"""Where below the worker's folder, how little room there is, and what is said of it."""
OF_BOTH = list(SMALL_PLACES)[:3]
"""Containers need none of the other places."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize(
    ("kind", "small"),
    [
        *(("process", small) for small in SMALL_PLACES),
        *(pytest.param("docker", small, marks=pytest.mark.docker) for small in OF_BOTH),
    ],
    indirect=["kind"],
)
async def test_a_full_disk_is_named_wherever_it_is_met(both: Cluster, small: str) -> None:
    place, room, said = SMALL_PLACES[small]
    with small_disk(both.place.folder / place, **room):
        run = await both.run()
    assert (run["reason"], run["infra_losses"], run["user_failures"]) == ("disk_full", 5, 0)
    assert said in run["execution_summary"]["error_message"]


@dataclass(frozen=True)
class Way:
    """What a program does after it has used what it uses, and what comes of it."""

    rest: str
    state: str
    reason: str | None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


WAYS = {
    "completes": Way("", "COMPLETED", None),
    "fails": Way("sys.exit(3)", "FAILED", "op_error"),
    "is killed": Way("os.kill(os.getpid(), 9)", "FAILED", "op_error"),
    "gives nonsense": Way("(io / 'outputs.json').write_text('nonsense')", "FAILED", "invalid_output"),
    "stays too long": Way("time.sleep(600)", "FAILED", "run_timeout", {"timeouts": {"run_s": 8}}),
    "is cancelled": Way("time.sleep(600)", "CANCELLED", "cancelled"),
}


def program_of(rest: str, **more: str) -> dict[str, Any]:
    head = "import json, os, pathlib, sys, time; io = pathlib.Path(os.environ['GYOZA_IO_DIR'])\n"
    return {"program": 'exec python3 -S -c "$PYTHON"', "env": {"PYTHON": head + USES + rest, **more}}


async def used(cluster: Cluster, run_id: str) -> None:
    """The program itself says so."""

    async def told() -> bool:
        return ("INFO", "used") in await cluster.told(run_id)

    await cluster.until(told, f"run {run_id} to have used what it uses")


def assert_measured(attempt: Object) -> None:
    """A second of one core, and 200 MB: within a factor, since both are sampled."""
    told = attempt["execution_summary"]
    assert told["cpu_s"] is not None and 0.7 < told["cpu_s"] < 4, told
    assert told["peak_ram_mb"] is not None and 190 < told["peak_ram_mb"] < 320, told


@pytest.mark.parametrize("name", WAYS)
async def test_what_an_attempt_used_is_told_however_it_ended(both: Cluster, name: str) -> None:
    way = WAYS[name]
    run_id = await both.submit(**program_of(way.rest), constraints=LARGE, **way.settings)
    if way.state == "CANCELLED":
        await used(both, run_id)
        await both.user.cancel_run(run_id)
    run = await both.ended(run_id)
    assert (run["state"], run["reason"]) == (way.state, way.reason)
    assert_measured(run)


async def test_what_a_lost_attempt_used_is_told_when_its_worker_is_back(
    shared: Cluster, kind: str, user: AsyncGyozaClient, line: Line, tmp_path: Path
) -> None:
    again = "os.environ['GYOZA_ATTEMPT'] == '1' and time.sleep(600)"
    engine = contained if kind == "docker" else Process
    async with working(line, user, tmp_path / "worker", engine=engine) as cluster:
        run_id = await cluster.submit(**program_of(again), constraints=LARGE)
        await used(cluster, run_id)
        line.is_cut = True

        async def is_lost() -> bool:
            return (await user.get_attempts(run_id))[0]["reason"] == "worker_lost"

        await cluster.until(is_lost, "the worker to be given up")
        line.is_cut = False
        run = await cluster.ended(run_id)
        assert (run["state"], run["infra_losses"], run["user_failures"]) == ("COMPLETED", 1, 0)
        for attempt in await user.get_attempts(run_id):
            assert_measured(attempt)
    await remove_images(cluster)
