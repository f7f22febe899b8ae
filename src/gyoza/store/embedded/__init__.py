"""The embedded PostgreSQL: nothing to install, nothing to set up, one data folder.

    async with embedded_database(Path("~/gyoza").expanduser()) as url: ...

Whatever happens to it, the next start puts right: an interrupted `initdb` leaves nothing, a PostgreSQL whose server
was killed is taken over once it has proved to serve this folder, one that was killed itself recovers, and one that dies
meanwhile is started again under the same URL. Its data, its log and its socket are in the data folder and nowhere
else, also as root.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gyoza.store.embedded.account import account_for
from gyoza.store.embedded.address import address
from gyoza.store.embedded.binaries import binaries_for
from gyoza.store.embedded.folder import DataFolder, disk_errors, owned
from gyoza.store.embedded.upkeep import Upkeep

__all__ = ["embedded_database"]

_log = logging.getLogger(__name__)


@asynccontextmanager
async def embedded_database(data_dir: Path, *, say: Callable[[str], None] = _log.info) -> AsyncGenerator[str]:
    """Run, or take over, the PostgreSQL of `data_dir`; its URL (`postgresql://...`), good for this user alone.

    `say` gets a sentence whenever somebody would wonder: a first start, a recovery that takes long, a restart. Recovery
    is waited for without a limit. The end of the context ends PostgreSQL, within 5 s. Raises StartUpError where it
    cannot run, and the text says what to do.
    """
    with owned(data_dir) as folder, address(folder.pgdata) as url:
        with disk_errors(folder.root):
            database = await _prepared(folder, url, say)
        try:
            with disk_errors(folder.root):
                await database.start()
            watch = asyncio.create_task(database.heal_for_ever())
            try:
                yield url
            finally:
                watch.cancel()
                await asyncio.wait([watch])
        finally:
            await database.stop()


async def _prepared(folder: DataFolder, url: str, say: Callable[[str], None]) -> Upkeep:
    account = account_for(folder.pgdata)
    binaries = binaries_for(account)
    folder.drop_drafts()
    if not folder.check():
        say(f"Making a database in {folder.root}")
        await asyncio.to_thread(folder.make, binaries, account)
    return Upkeep(folder, account, binaries, url, say)
