"""Definitions: one row a revision, immutable but for when it was deployed last."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from gyoza.store.database import Connection


@dataclass(frozen=True)
class Revision:
    """`content` is the JSON that was deployed, with its defaults filled in."""

    name: str
    revision: int
    version: str | None
    digest: str
    content: msgspec.Raw
    deployed_at: datetime


_COLUMNS = "name, revision, version, digest, content, deployed_at"


async def deploy(
    connection: Connection, name: str, version: str | None, digest: str, content: str, now: datetime
) -> tuple[Revision, bool]:
    """The revision, and whether it is new. The same content deployed again becomes the latest again."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
    again = await connection.execute(
        "UPDATE revisions SET deployed_at = %s WHERE name = %s AND digest = %s RETURNING " + _COLUMNS,
        [now, name, digest],
    )
    if row := await again.fetchone():
        return Revision(*row), False
    made = await connection.execute(
        "INSERT INTO revisions (name, revision, version, digest, content, deployed_at) "
        "SELECT %(name)s, coalesce(max(revision), 0) + 1, %(version)s, %(digest)s, %(content)s, %(now)s "
        "FROM revisions WHERE name = %(name)s RETURNING " + _COLUMNS,
        {"name": name, "version": version, "digest": digest, "content": content, "now": now},
    )
    row = await made.fetchone()
    assert row is not None
    return Revision(*row), True


async def latest(connection: Connection, name: str, version: str | None = None) -> Revision | None:
    """The one deployed last, of that version if given."""
    cursor = await connection.execute(
        "SELECT " + _COLUMNS + " FROM revisions WHERE name = %s AND (%s::text IS NULL OR version = %s) "
        "ORDER BY deployed_at DESC, revision DESC LIMIT 1",
        [name, version, version],
    )
    row = await cursor.fetchone()
    return None if row is None else Revision(*row)


async def newest_of_each(connection: Connection) -> list[Revision]:
    cursor = await connection.execute(
        "SELECT DISTINCT ON (name, version) " + _COLUMNS + " FROM revisions "
        "ORDER BY name, version, deployed_at DESC, revision DESC"
    )
    return _revisions(await cursor.fetchall())


async def history(connection: Connection, name: str) -> list[Revision]:
    """Newest deployment first."""
    cursor = await connection.execute(
        "SELECT " + _COLUMNS + " FROM revisions WHERE name = %s ORDER BY deployed_at DESC, revision DESC", [name]
    )
    return _revisions(await cursor.fetchall())


def _revisions(rows: Sequence[Sequence[Any]]) -> list[Revision]:
    return [Revision(*row) for row in rows]
