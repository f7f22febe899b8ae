"""Removing what nobody works on any more: programs, containers and folders of attempts, this worker's alone."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import JOB
from gyoza.worker.engines.cleanup import remove_folder, to_the_end
from gyoza.worker.work import Place

EVERY_S = 60.0

Lives = Callable[[str], bool]
"""Whether this process works on the attempt of this name, `<run id>-<attempt>`."""

_log = logging.getLogger(__name__)


async def sweeps(place: Place, lives: Lives) -> None:
    """For ever. What cannot be removed now is tried again."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            await sweep(place, lives)
        except (AttemptError, OSError) as error:
            _log.warning("could not remove what was left behind: %s", error)


async def sweep(place: Place, lives: Lives) -> int:
    """How many programs or containers were ended. A folder goes after what worked in it."""
    swept = await place.engine.sweep(lambda job: lives(job.removeprefix(JOB)))
    if swept:
        _log.warning("ended %s attempts that had been left behind", swept)
    for folder in await asyncio.to_thread(lambda: list(place.attempts.glob("*"))):
        if not lives(folder.name):
            await to_the_end(asyncio.to_thread(_remove, folder))
    return swept


def _remove(folder: Path) -> None:
    """One that cannot go, such as an op's that belongs to another user, holds up no other and no worker's start."""
    try:
        remove_folder(folder)
    except OSError as error:
        _log.warning("a folder that was left behind cannot be removed: %s", error)


def remove_unfinished(bundles: Path) -> None:
    """Downloads and builds in the midst of which an earlier process was killed."""
    for download in bundles.glob(".*.part"):
        download.unlink(missing_ok=True)
    for build in bundles.glob("build-*"):
        _remove(build)
