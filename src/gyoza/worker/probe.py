"""What this machine has to give."""

import os
import sys

import psutil

from gyoza.models.resources import SLOTS_PER_CORE, Resources, cpu_from_wire
from gyoza.worker.settings import WorkerSettings

_MB = 2**20


def probe(settings: WorkerSettings) -> Resources:
    """All cores that this process may use and all RAM, unless the settings say otherwise."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    cpu_m = cores * 1000 if settings.cpu is None else cpu_from_wire(settings.cpu) or 0
    return Resources(
        cpu_m=cpu_m,
        ram_mb=psutil.virtual_memory().total // _MB if settings.ram_mb is None else settings.ram_mb,
        slots=max(1, cpu_m * SLOTS_PER_CORE // 1000) if settings.slots is None else settings.slots,
    )
