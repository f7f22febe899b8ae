"""Runs that share a GPU, by what they declare and what they use; its driver is a fake that counts real processes."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pynvml
import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.worker.gpus import Gpus, Share
from gyoza.worker.steps import vram
from gyoza.worker.work import Work

from .cluster import Cluster, Line, working
from .nvml_fake import Card, FakeNvml, driven

USE = "use() { echo $1 > $GYOZA_IO_DIR/vram.$$; }; wait_for() { until [ -e $1 ]; do sleep 0.02; done; }; "
SIX = {"constraints": {"cpu": 0.1, "ram_mb": 256, "vram_mb": 6000}}

Hire = Callable[[Card], Any]


@pytest.fixture
def hire(line: Line, user: AsyncGyozaClient, tmp_path: Path, quiet_loop: None, monkeypatch: pytest.MonkeyPatch) -> Hire:
    """A worker with this GPU, in a room of its own; its attempts are looked at often."""
    monkeypatch.setattr(vram, "LOOK_S", 0.05)

    @asynccontextmanager
    async def hired(card: Card) -> AsyncIterator[Cluster]:
        async with working(line, user, tmp_path / "worker", gpus=Gpus(FakeNvml(card))) as cluster:
            yield cluster

    return hired


def card(**more: Any) -> Card:
    return driven(Card(f"GPU-{uuid4()}", **more))


async def states(cluster: Cluster, run_ids: list[str]) -> list[str]:
    return [(await cluster.user.get_run(run_id))["state"] for run_id in run_ids]


async def running(cluster: Cluster, *run_ids: str) -> None:
    for run_id in run_ids:
        await cluster.state(run_id, "RUNNING")


def peaks(cluster: Cluster) -> Mapping[str, int | None]:
    """What was measured so far of the attempts under way, by run."""
    return {name[0]: task.work.peak_vram_mb for name, task in cluster.agent._tasks.items()}


async def reported(cluster: Cluster) -> list[tuple[int, int]]:
    """The GPUs that the server knows of, and what strangers use of them."""
    worker = await cluster.user.get_worker("one")
    return [(gpu["id"], gpu["foreign_mb"]) for gpu in worker["resources"]["gpus"]]


async def beat(cluster: Cluster, line: Line) -> list[tuple[int, int]]:
    """The GPUs of the next heartbeat, and what strangers use of them."""

    def beats() -> list[bytes]:
        return [body for method, path, body in line.asked if (method, path) == ("PUT", "/workers/one")]

    before = len(beats())
    cluster.agent._beat_now.set()
    await cluster.until(lambda: len(beats()) > before, "a heartbeat")
    return [(gpu["id"], gpu["foreign_mb"]) for gpu in json.loads(beats()[-1])["resources"]["gpus"]]


async def test_of_three_runs_on_a_gpu_the_one_that_uses_too_much_is_ended_alone(hire: Hire, tmp_path: Path) -> None:
    gate, more = tmp_path / "gate", tmp_path / "more"
    modest = f"{USE} use 5000; wait_for {gate}"
    greedy = f"{USE} use 5000; wait_for {more}; use 7000; wait_for {gate}"
    async with hire(card()) as cluster:
        run_ids = [await cluster.submit(program, **SIX) for program in (modest, greedy, modest)]
        await running(cluster, *run_ids)
        await cluster.until(lambda: set(peaks(cluster).values()) == {5000}, "all three to be measured")
        more.touch()
        ended = await cluster.ended(run_ids[1])
        assert await states(cluster, [run_ids[0], run_ids[2]]) == ["RUNNING", "RUNNING"]
        gate.touch()
        others = [await cluster.ended(run_id) for run_id in (run_ids[0], run_ids[2])]
    assert (ended["state"], ended["reason"], ended["user_failures"]) == ("FAILED", "gpu_memory_exceeded", 1)
    summary = ended["execution_summary"]
    said = "It used 7000 MB of the memory of GPU 0 and declared 6000 MB (constraints.vram_mb)"
    assert (summary["error_message"], summary["peak_vram_mb"]) == (said, 7000)
    assert (summary["gpu_ids"], summary["signal"] in (9, 15)) == ([0], True)
    assert [(run["state"], run["execution_summary"]["peak_vram_mb"]) for run in others] == [("COMPLETED", 5000)] * 2


async def test_a_gpu_takes_as_many_runs_as_declare_no_more_than_it_has(hire: Hire, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with hire(card()) as cluster:
        run_ids = [await cluster.submit(f"{USE} use 6000; wait_for {gate}", **SIX) for _ in range(5)]
        await running(cluster, *run_ids[:4])
        assert await states(cluster, run_ids) == [*["RUNNING"] * 4, "PENDING"]
        gate.touch()
        assert {(await cluster.ended(run_id))["state"] for run_id in run_ids} == {"COMPLETED"}


async def test_what_strangers_use_is_not_given_until_they_leave(hire: Hire) -> None:
    shared = card(reserved_mb=30_000)
    async with hire(shared) as cluster:
        assert await reported(cluster) == [(0, 30_000)]
        assert (await cluster.user.get_worker("one"))["room"]["vram_mb"] == {"0": -6000}
        run_id = await cluster.submit("true", **SIX)
        assert (await cluster.run("true"))["state"] == "COMPLETED"  # placed since, by the same rounds
        assert await states(cluster, [run_id]) == ["PENDING"]
        shared.reserved_mb = 0
        cluster.agent._beat_now.set()
        assert (await cluster.ended(run_id))["state"] == "COMPLETED"


async def test_what_our_own_runs_use_is_not_foreign(hire: Hire, line: Line, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with hire(card(reserved_mb=500)) as cluster:
        run_id = await cluster.submit(f"{USE} use 5500; wait_for {gate}", **SIX)
        await running(cluster, run_id)
        await cluster.until(lambda: peaks(cluster)[run_id] == 5500, "it to be measured")
        assert [await beat(cluster, line) for _ in range(2)] == [[(0, 500)]] * 2
        gate.touch()
        await cluster.ended(run_id)


async def test_a_gpu_that_is_lost_is_reported_no_more_and_the_worker_works_on(hire: Hire, line: Line) -> None:
    fragile = card()
    async with hire(fragile) as cluster:
        assert await reported(cluster) == [(0, 0)]
        fragile.fault = pynvml.NVML_ERROR_GPU_IS_LOST
        assert await beat(cluster, line) == []
        assert (await cluster.run("true"))["state"] == "COMPLETED"


async def test_where_use_is_not_told_nothing_is_ended_and_the_log_says_so_once(
    hire: Hire, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gyoza.worker.gpus")
    gate = tmp_path / "gate"
    async with hire(card(tells_processes=False)) as cluster:
        run_id = await cluster.submit(f"{USE} use 9000; wait_for {gate}", **SIX)
        await running(cluster, run_id)
        await cluster.until(lambda: bool(caplog.messages), "the log to say so")
        gate.touch()
        run = await cluster.ended(run_id)
        again = await cluster.run("true", **SIX)
    assert {run["state"], again["state"]} == {"COMPLETED"}
    assert run["execution_summary"]["peak_vram_mb"] is None
    assert caplog.messages == ["GPU 0: the driver does not tell what each process uses; no run is held to it"]


def watch(share: Share, use: Mapping[int, int]) -> tuple[vram.Watch, SimpleNamespace]:
    """Of an attempt with this share of a GPU that is used so, and that attempt."""
    gpus = Gpus(FakeNvml(Card("GPU-a", computing=lambda: use)))
    work = SimpleNamespace(share=share, place=SimpleNamespace(gpus=gpus), peak_vram_mb=None, overuse=None)
    return vram.Watch(cast(Work, work)), work


async def test_more_is_forgiven_once_but_not_twice_in_a_row() -> None:
    use = {7: 0}
    watching, work = watch(Share([0], 6000, {7}), use)
    for used in (6000, 6001, 6000, 8000, 100):
        use[7] = used
        await watching._look()
        assert work.overuse is None
    use[7] = 6001
    await watching._look()
    await watching._look()
    assert work.overuse == "It used 6001 MB of the memory of GPU 0 and declared 6000 MB (constraints.vram_mb)"
    assert work.peak_vram_mb == 8000


@pytest.mark.parametrize("share", [Share([0], 0, {7}), Share([0], 10, ())], ids=["nothing declared", "out of sight"])
async def test_who_declared_nothing_or_cannot_be_seen_is_held_to_nothing(share: Share) -> None:
    watching, work = watch(share, {7: 9000})
    for _ in range(3):
        await watching._look()
    assert work.overuse is None
    assert work.peak_vram_mb == (9000 if share.pids else None)


async def test_an_attempt_without_gpus_asks_no_driver(hire: Hire) -> None:
    async with hire(card()) as cluster:
        run = await cluster.run('echo "{\\"gpus\\": \\"$CUDA_VISIBLE_DEVICES\\"}" > $GYOZA_IO_DIR/outputs.json')
    assert (run["outputs"], run["execution_summary"]["peak_vram_mb"]) == ({"gpus": ""}, None)
