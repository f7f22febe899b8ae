"""How full the disk is where an engine keeps its images, and how full it may be."""

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Watermark:
    """In percent of the disk: used beyond `high`, images go until no more than `low` is used."""

    high: float = 85
    low: float = 75


def used_percent(disk: Path) -> float:
    """As `df` says it; none where this machine has no such folder, since the engine is on another or in a machine of
    its own.
    """
    try:
        usage = shutil.disk_usage(disk)
    except OSError:
        return 0.0
    return 100 * usage.used / max(usage.used + usage.free, 1)
