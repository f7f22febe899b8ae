"""The attempt's own folder on this host."""

import asyncio
import errno
import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from gyoza.models.errors import AttemptError
from gyoza.worker.engines.cleanup import remove_folder, to_the_end
from gyoza.worker.work import Work

ENOUGH_BYTES = 64 * 2**20

_log = logging.getLogger(__name__)


@asynccontextmanager
async def workspace(work: Work) -> AsyncGenerator[None]:
    """`io_dir`, inside a folder that is closed to others; all of it is gone afterwards, whoever owns it."""
    folder = work.place.folder / "attempts" / work.assignment.name
    try:
        work.io_dir = await to_the_end(asyncio.to_thread(_made, folder))
        yield
    finally:
        await to_the_end(asyncio.to_thread(_cleared, folder))


def _made(folder: Path) -> Path:
    try:
        remove_folder(folder)
        (folder / "io").mkdir(parents=True)
        folder.chmod(0o700)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = "disk_full" if error.errno == errno.ENOSPC else "start_failed"
        raise AttemptError(reason, f"The worker could not make a folder for the attempt: {error}") from error
    if free < ENOUGH_BYTES:
        raise AttemptError("disk_full", f"Less than {ENOUGH_BYTES >> 20} MB are free where the worker keeps its data")
    return folder / "io"


def _cleared(folder: Path) -> None:
    """What cannot be removed costs no run its outputs: the next start of this worker tries again."""
    try:
        remove_folder(folder)
    except OSError as error:
        _log.warning("the folder of an attempt could not be removed: %s", error)
