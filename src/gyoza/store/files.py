"""What is known of files; their bytes lie in the file store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gyoza.store.database import Connection


@dataclass(frozen=True)
class File:
    """`sha256` is hexadecimal, `size` in bytes."""

    id: str
    sha256: str
    name: str
    media_type: str
    size: int
    created_at: datetime

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "uri": f"gyoza://files/{self.id}",
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "media_type": self.media_type,
        }


_COLUMNS = "id, sha256, name, media_type, size, created_at"


async def keep(connection: Connection, file: File) -> tuple[File, bool]:
    """The file, and whether it is new: the same bytes under the same name and type are one file."""
    cursor = await connection.execute(
        "INSERT INTO files (" + _COLUMNS + ") VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (sha256, name, media_type) DO UPDATE SET size = excluded.size RETURNING " + _COLUMNS,
        [file.id, file.sha256, file.name, file.media_type, file.size, file.created_at],
    )
    row = await cursor.fetchone()
    assert row is not None
    kept = _file(row)
    return kept, kept.id == file.id


async def get(connection: Connection, file_id: str) -> File | None:
    cursor = await connection.execute("SELECT " + _COLUMNS + " FROM files WHERE id = %s", [file_id])
    row = await cursor.fetchone()
    return None if row is None else _file(row)


async def is_named(connection: Connection, file_id: str, worker_id: str) -> bool:
    """Whether the inputs or the definition of a run name this file, of which the worker holds an unsettled attempt."""
    cursor = await connection.execute(
        """
        SELECT 1 FROM attempts a JOIN runs r ON r.id = a.run_id
        LEFT JOIN revisions d ON d.name = r.op_definition AND d.revision = r.revision
        WHERE a.held_by = %(worker_id)s AND a.settled_at IS NULL
            AND (strpos(r.inputs::text, %(file_id)s) > 0 OR strpos(d.content::text, %(file_id)s) > 0)
        LIMIT 1
        """,
        {"worker_id": worker_id, "file_id": file_id},
    )
    return await cursor.fetchone() is not None


async def lock(connection: Connection, sha256: str) -> None:
    """Until the transaction ends, nobody else keeps or deletes files with these bytes."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", [sha256])


async def delete(connection: Connection, file: File) -> bool:
    """Whether its bytes are needed no more."""
    await connection.execute("DELETE FROM files WHERE id = %s", [file.id])
    others = await connection.execute("SELECT 1 FROM files WHERE sha256 = %s LIMIT 1", [file.sha256])
    return await others.fetchone() is None


def _file(row: Sequence[Any]) -> File:
    return File(*row)
