"""The secrets of a worker: files that its owner put there, and that nobody else can read.

<folder>/<name>                 for every definition that names it
<folder>/<definition>/<name>    for that definition alone, which gets it instead of the other
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gyoza.models.definition import SECRET_NAME
from gyoza.models.errors import AttemptError
from gyoza.worker.trust import Untrusted, open_regular

MOST_BYTES = 16 * 2**10
_OTHERS = 0o077


@dataclass(frozen=True)
class Vault:
    """What is missing or open to others here may be in order elsewhere: the attempt is tried on another worker."""

    folder: Path | None = None

    def value(self, name: str, definition: str | None) -> bytes:
        """AttemptError `not_allowed` or `start_failed`, never with anything of the value."""
        if definition is None or not re.fullmatch(SECRET_NAME, name):
            raise AttemptError("not_allowed", f"'{name}' is not the name of a secret that a definition may have")
        try:
            descriptor = self._found(name, definition)
        except (OSError, Untrusted) as error:
            raise AttemptError("start_failed", f"This worker cannot use the secret '{name}': {error}") from error
        if descriptor is None:
            text = f"This worker has no secret '{name}': its owner puts it into a file of that name"
            raise AttemptError("start_failed", f"{text} (GYOZA_SECRETS_DIR)")
        with os.fdopen(descriptor, "rb") as file:
            value = file.read(MOST_BYTES + 1)
        if len(value) > MOST_BYTES:
            raise AttemptError("start_failed", f"The secret '{name}' of this worker is larger than {MOST_BYTES} bytes")
        return value

    def _found(self, name: str, definition: str) -> int | None:
        if self.folder is None or not self.folder.exists():
            return None
        _insist_closed("the folder of secrets", self.folder.stat(), "700")
        folder = self.folder.resolve()
        own = _opened(folder, f"{definition}/{name}") if _is_folder(definition) else None
        return _opened(folder, name) if own is None else own


def _is_folder(definition: str) -> bool:
    return definition not in (".", "..") and len(os.fsencode(definition)) <= 255


def _opened(folder: Path, name: str) -> int | None:
    descriptor = open_regular(folder, name)
    if descriptor is not None:
        try:
            _insist_closed("its file", os.fstat(descriptor), "600")
        except Untrusted:
            os.close(descriptor)
            raise
    return descriptor


def _insist_closed(what: str, found: os.stat_result, mode: str) -> None:
    """Untrusted where others may enter or read it."""
    if found.st_mode & _OTHERS or found.st_uid not in (0, os.geteuid()):
        raise Untrusted(f"{what} must belong to the worker's user and be closed to all others (chmod {mode})")
