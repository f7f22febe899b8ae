"""Keys, found by the SHA-256 of their text."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gyoza.models.keys import Key, Scope
from gyoza.store.database import Connection

_COLUMNS = "id, name, scopes, worker, hint, created_at, created_by, expires_at, revoked_at, last_used_at"


async def keep(connection: Connection, key: Key, digest: bytes) -> None:
    await connection.execute(
        "INSERT INTO keys (id, name, hash, hint, scopes, worker, created_at, created_by, expires_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            key.id,
            key.name,
            digest,
            key.hint,
            [scope.value for scope in Scope if scope in key.scopes],
            key.worker,
            key.created_at,
            key.created_by,
            key.expires_at,
        ],
    )


async def find(connection: Connection, digest: bytes, now: datetime) -> Key | None:
    """Be it good or not. That a good one was used is noted, to the minute."""
    cursor = await connection.execute(
        """
        WITH used AS (
            UPDATE keys SET last_used_at = %(now)s
            WHERE hash = %(digest)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %(now)s)
                AND (last_used_at IS NULL OR last_used_at <= %(now)s - interval '1 minute')
        )
        SELECT """
        + _COLUMNS
        + " FROM keys WHERE hash = %(digest)s",
        {"digest": digest, "now": now},
    )
    row = await cursor.fetchone()
    return None if row is None else _key(row)


async def every(connection: Connection) -> list[Key]:
    """Oldest first, those that are good no longer among them."""
    cursor = await connection.execute("SELECT " + _COLUMNS + " FROM keys ORDER BY created_at, id")
    return [_key(row) for row in await cursor.fetchall()]


async def revoke(connection: Connection, key_id: str, now: datetime) -> bool:
    """Whether there is such a key. One that was revoked before stays so since then."""
    cursor = await connection.execute(
        "UPDATE keys SET revoked_at = coalesce(revoked_at, %s) WHERE id = %s", [now, key_id]
    )
    return cursor.rowcount == 1


def _key(row: Sequence[Any]) -> Key:
    key_id, name, scopes, *rest = row
    return Key(key_id, name, frozenset(map(Scope, scopes)), *rest)
