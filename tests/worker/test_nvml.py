"""NVIDIA's own Python library, over the C functions of a driver that is played here: what we read is what it wrote."""

from collections.abc import Callable
from ctypes import byref, c_void_p, cast, memmove, sizeof
from typing import Any

import pynvml
import pytest

from gyoza.worker import nvml
from gyoza.worker.gpus import Gpus

from .nvml_fake import MB, Card, FakeNvml

NONE = 2**64 - 1
"""What a driver writes where it does not tell."""


class Driver:
    """`libnvidia-ml.so.1`: its functions by their names, which answer a code and write into what they are given."""

    def __init__(self, *cards: Card):
        self._fake = FakeNvml(*cards)
        self._handles: list[Card] = []

    def nvmlInitWithFlags(self, flags: int) -> int:
        return self._code(self._fake.nvmlInit)

    def nvmlShutdown(self) -> int:
        return self._code(self._fake.nvmlShutdown)

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        return self._code(self._fake.nvmlDeviceGetCount, lambda found: _write(count, found))

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        return self._code(lambda: self._fake.nvmlDeviceGetHandleByIndex(index.value), self._pointing(handle))

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:
        def write(modes: list[int]) -> None:
            _write(current, modes[0])
            _write(pending, modes[1])

        return self._code(lambda: self._fake.nvmlDeviceGetMigMode(self._card(handle)), write)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> int:
        ask = self._fake.nvmlDeviceGetMaxMigDeviceCount
        return self._code(lambda: ask(self._card(handle)), lambda found: _write(count, found))

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, part: Any) -> int:
        ask = self._fake.nvmlDeviceGetMigDeviceHandleByIndex
        return self._code(lambda: ask(self._card(handle), index.value), self._pointing(part))

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:
        return self._code(lambda: self._fake.nvmlDeviceGetUUID(self._card(handle)), lambda uuid: _put(text, uuid))

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:
        return self._code(lambda: self._fake.nvmlDeviceGetName(self._card(handle)), lambda name: _put(text, name))

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        def write(found: Any) -> None:
            memory._obj.total, memory._obj.free, memory._obj.used = found.total, found.free, found.used

        return self._code(lambda: self._fake.nvmlDeviceGetMemoryInfo(self._card(handle)), write)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> int:
        return self._processes(self._fake.nvmlDeviceGetComputeRunningProcesses, handle, count, found)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> int:
        return self._processes(self._fake.nvmlDeviceGetGraphicsRunningProcesses, handle, count, found)

    def nvmlDeviceGetMPSComputeRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> int:
        return self._processes(self._fake.nvmlDeviceGetMPSComputeRunningProcesses, handle, count, found)

    def _processes(self, ask: Callable[[Card], Any], handle: Any, count: Any, found: Any) -> int:
        """Asked twice: how many there are, and then for them, with room for more."""
        too_few = False

        def write(told: list[Any]) -> None:
            nonlocal too_few
            too_few = len(told) > count._obj.value
            for place, process in zip(found or (), told, strict=False):
                used = process.usedGpuMemory
                place.pid, place.usedGpuMemory = process.pid, NONE if used is None else used
            _write(count, len(told))

        code = self._code(lambda: ask(self._card(handle)), write)
        return pynvml.NVML_ERROR_INSUFFICIENT_SIZE if too_few else code

    def _code(self, ask: Callable[[], Any], write: Callable[[Any], None] = lambda _: None) -> int:
        try:
            write(ask())
        except pynvml.NVMLError as error:
            return error.value
        return pynvml.NVML_SUCCESS

    def _pointing(self, handle: Any) -> Callable[[Card], None]:
        """A pointer is an address that only the driver understands: here, a place in a list."""

        def write(card: Card) -> None:
            self._handles.append(card)
            address = c_void_p(len(self._handles))
            memmove(handle, byref(address), sizeof(address))

        return write

    def _card(self, handle: Any) -> Card:
        address = cast(handle, c_void_p).value
        assert address
        return self._handles[address - 1]


class OldDriver(Driver):
    """From before the calls for processes had a third version."""

    def __getattribute__(self, name: str) -> Any:
        if name.endswith("RunningProcesses_v3"):
            raise AttributeError(name)
        return super().__getattribute__(name)


def _write(number: Any, value: int) -> None:
    number._obj.value = value


def _put(text: Any, value: str) -> None:
    text.value = value.encode()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Driver], nvml.Nvml]:
    def loaded(driver: Driver) -> nvml.Nvml:
        monkeypatch.setattr(pynvml, "nvmlLib", driver)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return nvml.library()

    return loaded


CARDS = (
    Card(
        "GPU-a", name="NVIDIA L4", reserved_mb=300, computing=lambda: {11: 5000, 12: None}, drawing=lambda: {11: 5000}
    ),
    Card("GPU-b", fault=pynvml.NVML_ERROR_GPU_IS_LOST),
    Card("GPU-c", parts={2: Card("MIG-x", 4864, "NVIDIA A100 MIG 1g.5gb", computing=lambda: {13: 64})}),
)


async def test_what_a_driver_writes_is_what_is_read(load: Callable[[Driver], nvml.Nvml]) -> None:
    gpus = Gpus(load(Driver(*CARDS)), answer_s=20)
    for _ in range(2):
        seen = await gpus.look()
        whole, part = seen.devices
        assert (whole.id, whole.uuid, whole.name, whole.vram) == (0, "GPU-a", "NVIDIA L4", 24_000 * MB)
        assert (whole.used, whole.processes) == (5300 * MB, {11: 5000 * MB, 12: None})
        assert (part.id, part.uuid, part.name, part.vram) == (302, "MIG-x", "NVIDIA A100 MIG 1g.5gb", 4864 * MB)
        assert (part.used, part.processes) == (64 * MB, {13: 64 * MB})
        assert (seen.lost, seen.silent) == ({1: "GPU is lost"}, None)


async def test_a_driver_without_a_call_that_we_need_tells_of_no_processes(load: Callable[[Driver], nvml.Nvml]) -> None:
    seen = await Gpus(load(OldDriver(CARDS[0])), answer_s=20).look()
    assert [(device.uuid, device.processes) for device in seen.devices] == [("GPU-a", None)]
