"""What a worker on this machine would give, and why: for people, before one is started."""

import shutil
from pathlib import Path
from typing import Any

from gyoza.models.errors import StartUpError
from gyoza.models.resources import cpu_to_wire
from gyoza.worker import nvml
from gyoza.worker.engines import Owner
from gyoza.worker.gpus import MB, Gpus, offered
from gyoza.worker.probe import measured
from gyoza.worker.process import choose_engine
from gyoza.worker.settings import WorkerSettings

PATIENCE_S = 60.0
"""For a driver that nobody has used since the machine started: it wakes each GPU first."""


async def survey(settings: WorkerSettings) -> dict[str, Any]:
    """As JSON has it. `because` says of each number where it comes from; `no_gpus`, why there are none."""
    found = measured(settings)
    seen = await Gpus(nvml.library(), PATIENCE_S).look()
    used = [-(-device.used // MB) for device in seen.devices]
    gpus = [offered(device, ()).to_dict() for device in seen.devices]
    return {
        "cpu": cpu_to_wire(found["cpu"].value),
        "ram_mb": found["ram_mb"].value,
        "slots": found["slots"].value,
        "because": {name: each.because for name, each in found.items()},
        "disk": _disk(settings.folder),
        "engine": await _engine(settings),
        "gpus": [{**gpu, "used_mb": used_mb} for gpu, used_mb in zip(gpus, used, strict=True)],
        "lost_gpus": {str(gpu_id): why for gpu_id, why in seen.lost.items()},
        "no_gpus": seen.silent,
    }


def _disk(folder: Path) -> dict[str, Any]:
    """Where the worker keeps its data, now or once it is made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(there)
    return {"folder": str(folder), "total_mb": usage.total // MB, "free_mb": usage.free // MB}


async def _engine(settings: WorkerSettings) -> dict[str, Any]:
    """The one that would be used, and why that; without a name where none can be."""
    try:
        engine, why = await choose_engine(settings, Owner("survey", "survey", settings.name))
    except StartUpError as error:
        return {"name": None, "because": error.detail}
    await engine.close()
    return {"name": engine.name, "because": why.strip("()")}
