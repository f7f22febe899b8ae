"""What the control groups of this process allow it: CPU and memory, in both versions, by its own group and all above.

Which cores it may use (the cpuset) is not read here: the kernel narrows a process's affinity to them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Limit:
    """Milli-CPU or bytes, and the file that says so."""

    value: int
    file: Path


def cpu_limit() -> Limit | None:
    return _least(_CPU)


def ram_limit() -> Limit | None:
    return _least(_RAM)


def paths_in(text: str) -> dict[str, str]:
    """Of a file `/proc/<pid>/cgroup`: controller -> path; the unified hierarchy (v2) has the empty name."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update({name: path.lstrip("/") for name in controllers.split(",")})
    return paths


def _quota(file: Path) -> int:
    quota, period = file.read_text().split()
    return _milli(int(quota), int(period))


def _cfs_quota(file: Path) -> int:
    return _milli(int(file.read_text()), int(file.with_name("cpu.cfs_period_us").read_text()))


def _milli(quota: int, period: int) -> int:
    if quota < 0:
        raise ValueError("no quota")
    return max(1, quota * 1000 // period)


def _bytes(file: Path) -> int:
    """Version 1 writes 'none' as a number beyond any memory."""
    return int(file.read_text())


Read = Callable[[Path], int]
Where = tuple[str, str, Read]
_CPU: tuple[Where, ...] = (("", "cpu.max", _quota), ("cpu", "cpu.cfs_quota_us", _cfs_quota))
_RAM: tuple[Where, ...] = (("", "memory.max", _bytes), ("memory", "memory.limit_in_bytes", _bytes))
"""Controller, file, and how it is read: ValueError for 'no limit'."""


def _least(where: tuple[Where, ...]) -> Limit | None:
    found = [limit for controller, name, read in where for limit in _limits(controller, name, read)]
    return min(found, key=lambda limit: limit.value, default=None)


def _limits(controller: str, name: str, read: Read) -> Iterator[Limit]:
    for folder in _groups(controller):
        try:
            yield Limit(read(folder / name), folder / name)
        except (OSError, ValueError):
            continue


def _groups(controller: str) -> Iterator[Path]:
    """This process's group and those above it, as far as they are in sight.

    A container may see its own group as the root, under a path that only the host knows: then nothing but the root is
    there, which is the right one.
    """
    try:
        path = paths_in(OWN.read_text()).get(controller)
    except (OSError, ValueError):
        path = None
    if path is None:
        return
    parts = [part for part in PurePosixPath(path).parts if part != ".."]
    for depth in range(len(parts), -1, -1):
        yield (ROOT / controller).joinpath(*parts[:depth])
