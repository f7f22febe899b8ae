"""Cleaning up for certain: what a cancellation must not break off, and folders that an op made hard to remove."""

import asyncio
import os
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Finish `work` also when the caller is cancelled meanwhile; that cancellation is raised once it is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and (failed := task.exception()) is not None:
        raise cancelled from failed
    raise cancelled


def remove_folder(folder: Path) -> None:
    """Remove it whole, also where an op took away permissions; nothing there is fine."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except PermissionError:
        _unlock(folder)
        shutil.rmtree(folder)


def _unlock(folder: Path) -> None:
    folder.chmod(0o700)
    for parent, names, _ in os.walk(folder):
        for name in names:
            below = Path(parent, name)
            if not below.is_symlink():
                below.chmod(0o700)
