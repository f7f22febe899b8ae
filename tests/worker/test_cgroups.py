"""What control groups allow: files as kernels of both versions write them, and a real container."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from gyoza.worker import cgroups, probe
from gyoza.worker.settings import WorkerSettings

from .conftest import BASE_IMAGE

GB = 2**30
Lay = Callable[[Mapping[str, str]], None]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lay:
    """These files, in place of the kernel's; `own` is /proc/self/cgroup."""

    def laid(files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(cgroups, "ROOT", tmp_path)
        monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")

    return laid


V2 = {
    "own": "0::/system.slice/gyoza.service\n",
    "system.slice/gyoza.service/cpu.max": "150000 100000\n",
    "system.slice/gyoza.service/memory.max": f"{2 * GB}\n",
    "system.slice/cpu.max": "max 100000\n",
    "system.slice/memory.max": "max\n",
}
V1 = {
    "own": "5:memory:/box/gyoza\n3:cpu,cpuacct:/box/gyoza\n1:name=systemd:/\n0::/\n",
    "cpu/box/gyoza/cpu.cfs_quota_us": "150000\n",
    "cpu/box/gyoza/cpu.cfs_period_us": "100000\n",
    "cpu/cpu.cfs_quota_us": "-1\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "memory/box/gyoza/memory.limit_in_bytes": f"{2 * GB}\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
}


def limits() -> tuple[int | None, int | None]:
    found = (cgroups.cpu_limit(), cgroups.ram_limit())
    return tuple(limit.value if limit else None for limit in found)  # type: ignore[return-value]


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_the_limits_of_the_own_group_count(lay: Lay, files: dict[str, str]) -> None:
    lay(files)
    assert limits() == (1500, 2 * GB)


def test_a_tighter_group_above_counts_more(lay: Lay) -> None:
    lay({**V2, "system.slice/cpu.max": "50000 100000\n", "system.slice/memory.max": f"{GB}\n"})
    assert limits() == (500, GB)
    lay({**V1, "cpu/box/cpu.cfs_quota_us": "25000", "cpu/box/cpu.cfs_period_us": "100000"})
    lay({"memory/box/memory.limit_in_bytes": f"{GB}\n"})
    assert limits() == (250, GB)


def test_without_limits_there_are_none(lay: Lay, tmp_path: Path) -> None:
    lay({"own": "0::/\n"})
    assert limits() == (None, None)
    (tmp_path / "own").unlink()
    assert limits() == (None, None)


def test_a_container_that_sees_its_own_group_as_the_root_reads_that(lay: Lay) -> None:
    lay({"own": "0::/../../docker/abc\n", "cpu.max": "200000 100000", "memory.max": str(GB)})
    assert limits() == (2000, GB)


def test_a_worker_gives_no_more_than_its_group_allows(lay: Lay, tmp_path: Path) -> None:
    lay({"own": "0::/gyoza\n", "gyoza/cpu.max": "25000 100000", "gyoza/memory.max": str(64 * 2**20)})
    found = probe.measured(WorkerSettings("x", tmp_path))
    assert [(name, each.value) for name, each in found.items()] == [("cpu", 250), ("ram_mb", 64), ("slots", 1)]
    assert found["cpu"].because == f"limited by {tmp_path}/gyoza/cpu.max"
    assert found["ram_mb"].because == f"limited by {tmp_path}/gyoza/memory.max"


def test_a_limit_above_the_machine_gives_no_more_than_the_machine(lay: Lay, tmp_path: Path) -> None:
    lay({"own": "0::/\n", "cpu.max": "100000000 100000", "memory.max": str(2**60)})
    found = probe.measured(WorkerSettings("x", tmp_path))
    cores = len(os.sched_getaffinity(0))
    assert (found["cpu"].value, found["ram_mb"].value) == (cores * 1000, psutil.virtual_memory().total // 2**20)


def test_what_is_told_wins_and_what_was_measured_is_still_said(lay: Lay, tmp_path: Path) -> None:
    lay({"own": "0::/\n", "cpu.max": "25000 100000", "memory.max": str(64 * 2**20)})
    found = probe.measured(WorkerSettings("x", tmp_path, cpu=0.5, ram_mb=100, slots=7))
    assert [each.value for each in found.values()] == [500, 100, 7]
    assert found["cpu"].because == f"--cpu, instead of 0.25: limited by {tmp_path}/cpu.max"
    assert found["ram_mb"].because == f"--ram-mb, instead of 64: limited by {tmp_path}/memory.max"
    assert found["slots"].because == "--slots, instead of 1: 2 for each CPU"


@pytest.mark.docker
async def test_a_real_container_finds_its_own_limits(docker_ready: None) -> None:
    source = Path(cgroups.__file__)
    program = "import cgroups, json, os; print(json.dumps([cgroups.cpu_limit().value, cgroups.ram_limit().value, \
        len(os.sched_getaffinity(0))]))"
    flags = ["--cpus", "0.5", "-m", "100m", "--cpuset-cpus", "0", "-v", f"{source}:/here/cgroups.py:ro", "-w", "/here"]
    command = ["docker", "run", "--rm", "--network", "none", *flags, BASE_IMAGE, "python3", "-B", "-c", program]
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await running.communicate()
    assert json.loads(printed) == [500, 100 * 2**20, 1]
