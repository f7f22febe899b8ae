"""What an earlier process of this worker left behind: the attempts that it was killed in the middle of."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gyoza.worker.spool import FILE, Spool
from gyoza.worker.work import Assignment, Begun, Unreadable

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """An attempt that was not brought to its end, or whose end the server may not have heard."""

    assignment: Assignment
    spool: Spool


def names_in(attempts: Path) -> list[tuple[str, int]]:
    """Every attempt that has a folder, `<run id>-<attempt>`, whatever is left in it."""
    names = [folder.name.rpartition("-") for folder in attempts.glob("*-*")]
    return [(run_id, int(number)) for run_id, _, number in names if number.isdecimal()]


def left_in(attempts: Path) -> Sequence[Left]:
    """Those that can be gone on with; the others nobody holds any more, and the server takes them for lost."""
    found = [_read(folder) for folder in sorted(attempts.glob("*"))]
    return [left for left in found if left is not None]


def engines_of(left: Sequence[Left]) -> frozenset[str]:
    """With which engines their programs were started, by name."""
    begun = [each.spool.recall("begun", Begun) for each in left]
    return frozenset(each.engine for each in begun if each is not None)


def _read(folder: Path) -> Left | None:
    try:
        spool = Spool.read(folder / FILE)
        raw = spool.recall("assignment", msgspec.Raw)
        return None if raw is None else Left(Assignment.from_json(raw), spool)
    except (OSError, Unreadable) as error:
        _log.warning("%s: nothing here can be gone on with: %s", folder, error)
        return None
