"""The secrets that the op names: files beside its folder, and known so that they can be taken out of what it says."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.redaction import Redactor
from gyoza.worker.work import Work


@asynccontextmanager
async def secrets(work: Work) -> AsyncGenerator[None]:
    """They are gone with the attempt's folder. An op that is there already keeps those that it was given."""
    if work.assignment.execution.secrets:
        folder = work.io_dir.parent / "secrets"
        work.secrets = await to_the_end(asyncio.to_thread(_given, work, folder))
        work.secrets_dir = folder
        work.telling.redactor = Redactor(work.secrets.values())
    yield


def _given(work: Work, folder: Path) -> Mapping[str, bytes]:
    if not folder.exists():
        named = work.assignment.execution.secrets
        _write({name: work.place.vault.value(name, work.assignment.op_definition) for name in named}, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(values: Mapping[str, bytes], folder: Path) -> None:
    """All of them or none; closed to others, until an engine opens them to the op."""
    half = folder.with_name("secrets.part")
    half.mkdir(mode=0o700)
    for name, value in values.items():
        with os.fdopen(os.open(half / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(value)
    half.rename(folder)
