"""What is known of files: kept, found, deleted."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from gyoza.control.once import Asked, Reply, once
from gyoza.models.errors import FileMissing, Forbidden
from gyoza.models.keys import Caller
from gyoza.models.run import is_run_id
from gyoza.store import files
from gyoza.store.database import Connection, Database
from gyoza.store.files import File
from gyoza.store.ids import new_id


@dataclass(frozen=True)
class Upload:
    """Bytes that have arrived; `sha256` is hexadecimal."""

    sha256: str
    size: int
    name: str
    media_type: str


Render = Callable[[File, bool], Reply]
"""How a file is answered, and whether it is new."""


async def keep(
    database: Database,
    upload: Upload,
    adopt: Callable[[], None],
    render: Render,
    now: datetime,
    asked: Asked | None = None,
) -> Reply:
    """`adopt` puts its bytes in place: never while the same bytes are deleted."""
    file = File(new_id(now), upload.sha256, upload.name, upload.media_type, upload.size, now)

    async def work(connection: Connection) -> Reply:
        await files.lock(connection, upload.sha256)
        adopt()
        return render(*await files.keep(connection, file))

    return await once(database, asked, work, now)


async def get(database: Database, file_id: str) -> File:
    async with database.connection() as connection:
        found = await files.get(connection, file_id) if is_run_id(file_id) else None
    if found is None:
        raise FileMissing(file_id)
    return found


async def get_for(database: Database, file_id: str, caller: Caller) -> File:
    """A worker's key opens what its worker has to fetch, and not another file."""
    if caller.worker is not None and not await _is_named(database, file_id, caller.worker):
        raise Forbidden(
            f"The key '{caller.name}' speaks for worker '{caller.worker}' alone, "
            f"and no run that this worker holds names file '{file_id}'"
        )
    return await get(database, file_id)


async def _is_named(database: Database, file_id: str, worker_id: str) -> bool:
    async with database.connection() as connection:
        return is_run_id(file_id) and await files.is_named(connection, file_id, worker_id)


async def delete(database: Database, file_id: str, discard: Callable[[str], None]) -> None:
    """`discard` is called with the SHA-256 of bytes that no file needs any more."""
    file = await get(database, file_id)

    async def work(connection: Connection) -> None:
        await files.lock(connection, file.sha256)
        if await files.delete(connection, file):
            discard(file.sha256)

    await database.transact(work)
