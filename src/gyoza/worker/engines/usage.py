"""What a program has used so far, sampled while it runs: CPU seconds and the most RAM at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyoza.worker.cgroups import paths_in

MB = 1024 * 1024
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


@dataclass
class Usage:
    """The most that was seen; None where nothing was. `oom_kills`: processes that the memory limit has killed."""

    cpu_s: float | None = None
    peak_ram: int | None = None
    oom_kills: int = 0

    def saw(self, cpu_s: float, ram: int) -> None:
        """`ram` in bytes."""
        self.cpu_s = max(self.cpu_s or 0.0, cpu_s)
        self.peak_ram = max(self.peak_ram or 0, ram)

    @property
    def peak_ram_mb(self) -> int | None:
        return None if self.peak_ram is None else -(-self.peak_ram // MB)


def read_cgroup(pid: int, container_id: str) -> tuple[float, int] | None:
    """CPU seconds and bytes of RAM of a container on this host, from its cgroup (v2 or v1); None where out of sight.

    Files that the kernel could drop at any time (the inactive page cache) are not counted as used.
    """
    try:
        paths = _cgroup_paths(pid, container_id)
        return _read_v1(paths) if "memory" in paths else _read_v2(paths[""])
    except (OSError, ValueError, KeyError):
        return None


def read_pids(pid: int, container_id: str) -> frozenset[int]:
    """The processes of a container on this host, from its cgroup and those inside it; none where out of sight."""
    try:
        paths = _cgroup_paths(pid, container_id)
        folder = CGROUPS / "memory" / paths["memory"] if "memory" in paths else CGROUPS / paths[""]
        return frozenset(int(line) for file in folder.rglob("cgroup.procs") for line in file.read_text().split())
    except (OSError, ValueError, KeyError):
        return frozenset()


def read_oom_kills(pid: int, container_id: str) -> int:
    """How many processes of a container its memory limit has killed; 0 where out of sight."""
    try:
        paths = _cgroup_paths(pid, container_id)
        v1 = CGROUPS / "memory" / paths["memory"] / "memory.oom_control" if "memory" in paths else None
        return _field(v1 or CGROUPS / paths[""] / "memory.events", "oom_kill")
    except (OSError, ValueError, KeyError):
        return 0


def _cgroup_paths(pid: int, container_id: str) -> dict[str, str]:
    """Those that are the container's own. It is put into one after the other while it starts, and what is not yet is
    its parent's; none where a process of that number is another one's, since the engine runs on another machine.
    """
    paths = paths_in((PROC / str(pid) / "cgroup").read_text())
    return {controller: path for controller, path in paths.items() if container_id in path}


def _read_v2(path: str) -> tuple[float, int]:
    folder = CGROUPS / path
    cache = _field(folder / "memory.stat", "inactive_file")
    used = int((folder / "memory.current").read_text())
    return _field(folder / "cpu.stat", "usage_usec") / 1e6, max(used - cache, 0)


def _read_v1(paths: dict[str, str]) -> tuple[float, int]:
    memory = CGROUPS / "memory" / paths["memory"]
    cpu = CGROUPS / "cpuacct" / paths["cpuacct"] / "cpuacct.usage"
    used = int((memory / "memory.usage_in_bytes").read_text())
    cache = _field(memory / "memory.stat", "total_inactive_file")
    return int(cpu.read_text()) / 1e9, max(used - cache, 0)


def _field(path: Path, name: str) -> int:
    fields = dict(line.split(" ", 1) for line in path.read_text().splitlines())
    return int(fields[name])


def read_stats(stats: dict[str, Any]) -> tuple[float, int] | None:
    """The same from the engine's own statistics; None for a container that no longer runs."""
    memory = stats.get("memory_stats", {})
    if "usage" not in memory:
        return None
    details = memory.get("stats", {})
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, max(memory["usage"] - cache, 0)
