"""The attempt's own folder on this host."""

import asyncio
import errno
import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from gyoza.models.errors import AttemptError
from gyoza.worker import spool
from gyoza.worker.engines.cleanup import remove_folder, to_the_end
from gyoza.worker.work import Work

ENOUGH_BYTES = 64 * 2**20

_log = logging.getLogger(__name__)


@asynccontextmanager
async def workspace(work: Work) -> AsyncGenerator[None]:
    """`io_dir`, inside a folder that is closed to others; afterwards only what has still to be told is in there.

    What an earlier process began with is left as it is.
    """
    work.io_dir = work.folder / "io"
    try:
        if work.begun is None:
            await to_the_end(asyncio.to_thread(_make, work.folder))
        yield
    finally:
        await work.spool.sync()
        await to_the_end(asyncio.to_thread(_clear, work.folder))


def _make(folder: Path) -> None:
    try:
        _remove_all_but_the_spool(folder)
        (folder / "io").mkdir(parents=True)
        folder.chmod(0o700)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = "disk_full" if error.errno == errno.ENOSPC else "start_failed"
        raise AttemptError(reason, f"The worker could not make a folder for the attempt: {error}") from error
    if free < ENOUGH_BYTES:
        raise AttemptError("disk_full", f"Less than {ENOUGH_BYTES >> 20} MB are free where the worker keeps its data")


def _clear(folder: Path) -> None:
    """What cannot be removed costs no run its outputs: a later sweep tries again."""
    try:
        _remove_all_but_the_spool(folder)
    except OSError as error:
        _log.warning("the folder of an attempt could not be removed: %s", error)


def _remove_all_but_the_spool(folder: Path) -> None:
    for path in folder.glob("*"):
        if path.name == spool.FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink()
