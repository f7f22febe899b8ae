"""What is known of files: kept, found, deleted."""

from dataclasses import dataclass
from datetime import datetime

from gyoza.models.errors import FileMissing
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


async def keep(database: Database, upload: Upload, now: datetime) -> tuple[File, bool]:
    """The file, and whether it is new."""
    file = File(new_id(now), upload.sha256, upload.name, upload.media_type, upload.size, now)
    async with database.connection() as connection:
        return await files.keep(connection, file)


async def get(database: Database, file_id: str) -> File:
    async with database.connection() as connection:
        found = await files.get(connection, file_id) if is_run_id(file_id) else None
    if found is None:
        raise FileMissing(file_id)
    return found


async def delete(database: Database, file_id: str) -> str | None:
    """The SHA-256 whose bytes are needed no more, if so."""
    await get(database, file_id)

    async def work(connection: Connection) -> tuple[str, bool] | None:
        return await files.delete(connection, file_id)

    gone = await database.transact(work)
    return gone[0] if gone and gone[1] else None
