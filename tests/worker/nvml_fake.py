"""NVIDIA's library as far as a worker asks it, without a driver: the same calls, answers and errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import psutil
import pynvml

MB = 2**20
Used = Mapping[int, int | None]


def error(code: int) -> pynvml.NVMLError:
    return pynvml.NVMLError(code)


@dataclass
class Card:
    """MB. `use`: pid -> MB; `fault`: what every call on it raises. `parts`: slot -> a part, of a divided GPU."""

    uuid: str
    vram_mb: int = 24_000
    name: str = "NVIDIA L4"
    reserved_mb: int = 0
    computing: Callable[[], Used] = dict
    drawing: Callable[[], Used] = dict
    fault: int | None = None
    tells_processes: bool = True
    parts: dict[int, "Card"] = field(default_factory=dict)


class FakeNvml:
    """As the library does, it refuses everything before `nvmlInit`, and everything of a GPU that is lost."""

    def __init__(self, *cards: Card):
        self.cards = list(cards)
        self.fault: int | None = None
        self.inits = 0
        self.answers = Event()
        self.answers.set()

    def nvmlInit(self) -> None:
        self._ask()
        self.inits += 1

    def nvmlShutdown(self) -> None:
        self._asked()
        self.inits -= 1

    def nvmlDeviceGetCount(self) -> int:
        self._asked()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self._of(self.cards[index])

    def nvmlDeviceGetMigMode(self, handle: Card) -> list[int]:
        if not self._of(handle).parts:
            raise error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Card) -> int:
        return 7 if self._of(handle).parts else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Card, index: int) -> Card:
        if index not in self._of(handle).parts:
            raise error(pynvml.NVML_ERROR_NOT_FOUND)
        return handle.parts[index]

    def nvmlDeviceGetUUID(self, handle: Card) -> str:
        return self._of(handle).uuid

    def nvmlDeviceGetName(self, handle: Card) -> str:
        return self._of(handle).name

    def nvmlDeviceGetMemoryInfo(self, handle: Card) -> SimpleNamespace:
        card = self._of(handle)
        use = {**card.drawing(), **card.computing()}
        used = (card.reserved_mb + sum(each or 0 for each in use.values())) * MB
        return SimpleNamespace(total=card.vram_mb * MB, free=card.vram_mb * MB - used, used=used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Card) -> list[SimpleNamespace]:
        if not self._of(handle).tells_processes:
            raise error(pynvml.NVML_ERROR_NO_PERMISSION)
        return _told(handle.computing())

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Card) -> list[SimpleNamespace]:
        return _told(self._of(handle).drawing())

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Card) -> list[SimpleNamespace]:
        self._of(handle)
        raise error(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def _ask(self) -> None:
        self.answers.wait()
        if self.fault is not None:
            raise error(self.fault)

    def _asked(self) -> None:
        self._ask()
        if not self.inits:
            raise error(pynvml.NVML_ERROR_UNINITIALIZED)

    def _of(self, card: Card) -> Card:
        self._asked()
        if card.fault is not None:
            raise error(card.fault)
        return card


def _told(use: Used) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=None if mb is None else mb * MB) for pid, mb in use.items()]


def driven(card: Card) -> Card:
    """What is used of it is what living processes say: those that were told of this GPU by its UUID, in a file
    `vram.<pid>` of their GYOZA_IO_DIR.
    """
    return replace(card, computing=lambda: _used_of(card.uuid))


def _used_of(uuid: str) -> dict[int, int]:
    used: dict[int, int] = {}
    for process in psutil.process_iter():
        try:
            env = process.environ()
            if env.get("CUDA_VISIBLE_DEVICES") == uuid and process.status() != psutil.STATUS_ZOMBIE:
                used[process.pid] = int(Path(env["GYOZA_IO_DIR"], f"vram.{process.pid}").read_text())
        except (psutil.Error, OSError, KeyError, ValueError):
            continue
    return used
