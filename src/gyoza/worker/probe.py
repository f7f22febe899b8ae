"""What this machine has to give: what may be used of it, or what the settings say instead."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from gyoza.models.resources import SLOTS_PER_CORE, Resources, cpu_from_wire
from gyoza.worker import cgroups
from gyoza.worker.cgroups import Limit
from gyoza.worker.gpus import MB, Gpus, Share
from gyoza.worker.settings import WorkerSettings


@dataclass(frozen=True)
class Found:
    """A number, and where it comes from."""

    value: int
    because: str

    def unless_given(self, given: int | None, option: str, per: int = 1) -> "Found":
        return self if given is None else Found(given, f"{option}, instead of {self.value / per:g}: {self.because}")


class Machine:
    """Asked anew for every heartbeat: limits change while a worker runs, and strangers take GPU memory."""

    def __init__(self, settings: WorkerSettings, gpus: Gpus):
        self._settings = settings
        self._gpus = gpus

    async def resources(self, shares: Iterable[Share] = ()) -> Resources:
        """`shares`: what this worker's own attempts have of the GPUs."""
        cpu_m, ram_mb, slots = (found.value for found in measured(self._settings).values())
        return Resources(cpu_m, ram_mb, slots, await self._gpus.offered(shares))


def measured(settings: WorkerSettings) -> dict[str, Found]:
    """`cpu` in milli-CPU, `ram_mb`, `slots`."""
    cpu = _cpu().unless_given(cpu_from_wire(settings.cpu), "--cpu", per=1000)
    slots = Found(max(1, cpu.value * SLOTS_PER_CORE // 1000), f"{SLOTS_PER_CORE} for each CPU")
    return {
        "cpu": cpu,
        "ram_mb": _ram_mb().unless_given(settings.ram_mb, "--ram-mb"),
        "slots": slots.unless_given(settings.slots, "--slots"),
    }


def _cpu() -> Found:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else cores
    whole = Found(cores * 1000, f"all {cores} cores")
    bound = Found(usable * 1000, f"{usable} of {cores} cores may be used by this process")
    return _least(whole, bound, limit=cgroups.cpu_limit(), per=1)


def _ram_mb() -> Found:
    total = psutil.virtual_memory().total
    return _least(Found(total // MB, "all memory"), limit=cgroups.ram_limit(), per=MB)


def _least(*found: Found, limit: Limit | None, per: int) -> Found:
    """The first of the smallest."""
    limits = [Found(limit.value // per, f"limited by {limit.file}")] if limit else []
    return min([*found, *limits], key=lambda each: each.value)
