"""What a run asks for and what a worker has, in whole units: milli-CPU, MB of RAM, MB of VRAM on one GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

COUNTED_CPU_M = 1000
COUNTED_RAM_MB = 256
SLOTS_PER_CORE = 2


def cpu_to_wire(cpu_m: int | None) -> int | float | None:
    """Whole CPUs as an integer, parts as a number with at most three decimals."""
    if cpu_m is None:
        return None
    return cpu_m // 1000 if cpu_m % 1000 == 0 else cpu_m / 1000


def cpu_from_wire(cpu: float | None) -> int | None:
    """Milli-CPU; ValueError when `cpu` has more than three decimals."""
    if cpu is None:
        return None
    cpu_m = round(cpu * 1000)
    if cpu_m / 1000 != cpu:
        raise ValueError(f"{cpu} CPU has more than three decimals")
    return cpu_m


@dataclass(frozen=True)
class Constraints:
    """What an op declares it needs. None is 'not declared', which is not free: see `counted`."""

    cpu_m: int | None = None
    ram_mb: int | None = None
    vram_mb: int | None = None

    @property
    def counted(self) -> "Room":
        """The room that one attempt takes."""
        return Room(
            cpu_m=COUNTED_CPU_M if self.cpu_m is None else self.cpu_m,
            ram_mb=COUNTED_RAM_MB if self.ram_mb is None else self.ram_mb,
            vram_mb=self.vram_mb or 0,
        )

    def to_dict(self) -> dict[str, Any]:
        return {"cpu": cpu_to_wire(self.cpu_m), "ram_mb": self.ram_mb, "vram_mb": self.vram_mb}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "Constraints":
        data = data or {}
        return cls(cpu_from_wire(data.get("cpu")), data.get("ram_mb"), data.get("vram_mb"))


@dataclass(frozen=True)
class Room:
    """Counted room of one attempt: always one slot; `vram_mb` on a single GPU."""

    cpu_m: int
    ram_mb: int
    vram_mb: int = 0


@dataclass(frozen=True)
class Gpu:
    """One GPU; `foreign_mb` is VRAM in use by programs that are not this worker's."""

    id: int
    uuid: str
    name: str
    vram_mb: int
    foreign_mb: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "uuid": self.uuid,
            "name": self.name,
            "vram_mb": self.vram_mb,
            "foreign_mb": self.foreign_mb,
        }


@dataclass(frozen=True)
class Resources:
    """What a worker reports to have."""

    cpu_m: int
    ram_mb: int
    slots: int
    gpus: tuple[Gpu, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "cpu": cpu_to_wire(self.cpu_m),
            "ram_mb": self.ram_mb,
            "slots": self.slots,
            "gpus": [gpu.to_dict() for gpu in self.gpus],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Resources":
        return cls(
            cpu_m=cpu_from_wire(data["cpu"]) or 0,
            ram_mb=data["ram_mb"],
            slots=data["slots"],
            gpus=tuple(Gpu(**gpu) for gpu in data.get("gpus", ())),
        )

    @property
    def free(self) -> "Free":
        """All of it, before any attempt is placed; strangers' VRAM is not ours to give."""
        return Free(self.cpu_m, self.ram_mb, self.slots, {gpu.id: gpu.vram_mb - gpu.foreign_mb for gpu in self.gpus})


@dataclass(frozen=True)
class Free:
    """What is left of a worker. `vram_mb` maps a GPU's id to its free MB; numbers may be negative after a shrink."""

    cpu_m: int
    ram_mb: int
    slots: int
    vram_mb: Mapping[int, int]

    def fits(self, room: Room) -> bool:
        return not self.lacks(room)

    def lacks(self, room: Room) -> tuple[str, ...]:
        """Which of cpu, ram, slots, vram are too little for `room`; empty when it fits."""
        short = {
            "cpu": self.cpu_m < room.cpu_m,
            "ram": self.ram_mb < room.ram_mb,
            "slots": self.slots < 1,
            "vram": room.vram_mb > 0 and self.gpu_for(room) is None,
        }
        return tuple(name for name, is_short in short.items() if is_short)

    def gpu_for(self, room: Room) -> int | None:
        """The fullest GPU on which `room` still fits, so that big holes stay whole."""
        if not room.vram_mb:
            return None
        fitting = [(free, gpu) for gpu, free in self.vram_mb.items() if free >= room.vram_mb]
        return min(fitting)[1] if fitting else None

    def minus(self, room: Room, gpu_ids: tuple[int, ...] = ()) -> "Free":
        left = {gpu: free - (room.vram_mb if gpu in gpu_ids else 0) for gpu, free in self.vram_mb.items()}
        return replace(
            self, cpu_m=self.cpu_m - room.cpu_m, ram_mb=self.ram_mb - room.ram_mb, slots=self.slots - 1, vram_mb=left
        )
