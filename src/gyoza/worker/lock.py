"""One process at a time works in a worker's folder."""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from gyoza.models.errors import StartUpError

PATIENCE_S = 15.0
_LOOK_S = 0.05


@asynccontextmanager
async def alone_in(folder: Path) -> AsyncGenerator[None]:
    """Once an earlier process has ended, which hears from the server that it must; StartUpError when it does not."""
    path = folder / "lock"
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_S
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        while not _locked(file.fileno()):
            if loop.time() > until:
                pid = file.read().strip() or "unknown"
                raise StartUpError(f"An earlier process of this worker works in {folder} still: end it (pid {pid})")
            await asyncio.sleep(_LOOK_S)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
