"""GPUs as NVIDIA's driver tells of them: the few calls of its library that are used, and what is read from them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import pynvml
from pynvml import NVMLError, NVMLLibraryMismatchError

T = TypeVar("T")

PARTS = 100
"""Part j of GPU i (MIG) has the id 100 x (i + 1) + j; whole GPUs stay below."""
_NOT_MIG = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
_NO_PART = (pynvml.NVML_ERROR_NOT_FOUND,)


class Memory(Protocol):
    """In bytes."""

    total: int
    free: int


class GpuProcess(Protocol):
    """`usedGpuMemory` in bytes; None where the driver does not say."""

    pid: int
    usedGpuMemory: int | None


class Nvml(Protocol):
    """Names and behaviour are the library's own; every call may raise its NVMLError."""

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Memory: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[GpuProcess]: ...
    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Any) -> Sequence[GpuProcess]: ...
    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Any) -> Sequence[GpuProcess]: ...


def library() -> Nvml:
    """NVIDIA's. Without a driver `nvmlInit` raises NVMLError, and nothing worse happens."""
    return cast(Nvml, pynvml)


@dataclass(frozen=True)
class Device:
    """A GPU, or a part of one (MIG), at a moment. Memory in bytes.

    `used` is all that nobody can have any more, the driver's own part included. `processes`: pid -> what it uses, None
    where the driver does not say; None instead of the mapping where it does not even name them.
    """

    id: int
    uuid: str
    name: str
    vram: int
    used: int
    processes: Mapping[int, int | None] | None

    @property
    def tells_use(self) -> bool:
        return self.processes is not None and None not in self.processes.values()

    def used_by(self, pids: Iterable[int]) -> int | None:
        """By these together; None where the driver does not say."""
        if self.processes is None:
            return None
        total = 0
        for used in (self.processes[pid] for pid in pids if pid in self.processes):
            if used is None:
                return None
            total += used
        return total


@dataclass(frozen=True)
class Look:
    """What is there, in the order of the PCI bus; `lost`: a GPU that does not answer -> why.

    `silent` is why the driver as a whole does not answer, `no_driver` that there is none, which is no fault.
    """

    devices: Sequence[Device] = ()
    lost: Mapping[int, str] = field(default_factory=dict[int, str])
    silent: str | None = None
    no_driver: bool = False


def silence(error: NVMLError) -> Look:
    """No GPUs, because the driver as a whole does not answer."""
    return Look(silent=str(error), no_driver=_code(error) == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


def look(nvml: Nvml) -> Look:
    """NVMLError where the driver as a whole does not answer."""
    found: list[Device] = []
    lost: dict[int, str] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            found += [_device(nvml, gpu_id, handle) for gpu_id, handle in _handles(nvml, index)]
        except NVMLError as error:
            lost[index] = str(error)
    return Look(found, lost)


def _handles(nvml: Nvml, index: int) -> Iterator[tuple[int, Any]]:
    """The GPU, or its parts where it is divided: as a whole it then runs nothing."""
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)
    is_divided, _ = _unless(_NOT_MIG, (0, 0), lambda: nvml.nvmlDeviceGetMigMode(gpu))
    if not is_divided:
        yield index, gpu
        return
    for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        part = _unless(_NO_PART, None, lambda slot=slot: nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot))
        if part is not None:
            yield PARTS * (index + 1) + slot, part


def _device(nvml: Nvml, gpu_id: int, handle: Any) -> Device:
    """Memory before processes: what is freed or taken between the two counts as ours rather than as a stranger's."""
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(
        id=gpu_id,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        vram=memory.total,
        used=memory.total - memory.free,
        processes=_processes(nvml, handle),
    )


def _processes(nvml: Nvml, handle: Any) -> Mapping[int, int | None] | None:
    """A program that computes and draws is told of twice, each time with all that it uses."""
    computing = _told(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    if computing is None:
        return None
    drawing = _told(nvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or ()
    sharing = _told(nvml.nvmlDeviceGetMPSComputeRunningProcesses, handle) or ()
    found: dict[int, int | None] = {}
    for process in (*computing, *drawing, *sharing):
        seen = (found.get(process.pid), process.usedGpuMemory)
        found[process.pid] = max((used for used in seen if used is not None), default=None)
    return found


def _told(ask: Callable[[Any], Sequence[GpuProcess]], handle: Any) -> Sequence[GpuProcess] | None:
    """None where the driver does not tell: not of this kind of GPU, or not to this user."""
    try:
        return ask(handle)
    except (NVMLError, NVMLLibraryMismatchError):  # the second: a driver older than the call
        return None


def _unless(refusals: Sequence[int], otherwise: T, ask: Callable[[], T]) -> T:
    """The answer, or `otherwise` for these refusals, which are no fault."""
    try:
        return ask()
    except NVMLError as error:
        if _code(error) not in refusals:
            raise
        return otherwise


def _code(error: NVMLError) -> int:
    return cast(Any, error).value
