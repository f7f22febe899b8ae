"""What a worker knows of the images on its engine: which of them it brought there, and when it last used them."""

import json
import logging
from collections.abc import Collection, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USED_S = 60.0
"""Last use is kept to the minute: not every attempt writes the file."""

_log = logging.getLogger(__name__)


@dataclass
class Kept:
    """`names`: under which this worker pulled it; none where somebody else brought it, or it was built here."""

    used_at: float
    names: list[str] = field(default_factory=list[str])


class Shelf:
    """By image id, in a small file that outlives the process; without a path, for as long as the process lives.

    The file is no more than a memory: where it is lost, what was pulled counts as somebody else's.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._kept = _read(path)
        self._written_at = float("-inf")

    def used(self, image_id: str, now: float) -> None:
        self._kept.setdefault(image_id, Kept(now)).used_at = now
        if now - self._written_at >= USED_S:
            self._write(now)

    def pulled(self, image_id: str, name: str, now: float) -> None:
        kept = self._kept.setdefault(image_id, Kept(now))
        kept.used_at = now
        if name not in kept.names:
            kept.names.append(name)
        self._write(now)

    def names(self, image_id: str) -> Collection[str]:
        return self._kept[image_id].names if image_id in self._kept else ()

    def used_at(self, image_id: str, made_at: float) -> float:
        """Last use; of an image that was never used here, when it was made."""
        return self._kept[image_id].used_at if image_id in self._kept else made_at

    @property
    def ids(self) -> Set[str]:
        return set(self._kept)

    def forget(self, image_ids: Collection[str]) -> None:
        """What is gone from the engine: should it come back, somebody else brought it."""
        for image_id in image_ids:
            self._kept.pop(image_id, None)
        if image_ids:
            self._write(self._written_at)

    def _write(self, now: float) -> None:
        self._written_at = now
        if self._path is None:
            return
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            fresh.write_text(json.dumps({image_id: vars(kept) for image_id, kept in self._kept.items()}))
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("which images this worker has brought here could not be written down: %s", error)


def _read(path: Path | None) -> dict[str, Kept]:
    found: dict[str, Kept] = {}
    if path is not None:
        with suppress(OSError, ValueError, TypeError, AttributeError):
            said: dict[str, Any] = json.loads(path.read_bytes())
            found = {image_id: Kept(float(kept["used_at"]), list(kept["names"])) for image_id, kept in said.items()}
    return found
