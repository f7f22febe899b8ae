"""Answers that were given, by their idempotency keys."""

from dataclasses import dataclass
from datetime import datetime

from gyoza.store.database import Connection


@dataclass(frozen=True)
class Reply:
    """An answer as it goes out. `again`: it was given before."""

    status: int
    body: bytes
    again: bool = False


async def take(
    connection: Connection, owner: str, key: str, fingerprint: bytes, now: datetime, expires_at: datetime
) -> bool:
    """Whether the key is ours now; waits for whoever is about to take it. One that has expired is free."""
    cursor = await connection.execute(
        """
        INSERT INTO idempotency (owner, key, fingerprint, status, answer, expires_at) VALUES (%s, %s, %s, 0, '', %s)
        ON CONFLICT (owner, key) DO UPDATE SET fingerprint = excluded.fingerprint, expires_at = excluded.expires_at
        WHERE idempotency.expires_at <= %s RETURNING true
        """,
        [owner, key, fingerprint, expires_at, now],
    )
    return await cursor.fetchone() is not None


async def keep(connection: Connection, owner: str, key: str, reply: Reply) -> None:
    await connection.execute(
        "UPDATE idempotency SET status = %s, answer = %s WHERE owner = %s AND key = %s",
        [reply.status, reply.body, owner, key],
    )


async def stored(connection: Connection, owner: str, key: str) -> tuple[bytes, Reply]:
    """The fingerprint of what was asked, and the answer."""
    cursor = await connection.execute(
        "SELECT fingerprint, status, answer FROM idempotency WHERE owner = %s AND key = %s", [owner, key]
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], Reply(row[1], row[2], again=True)


async def expire(connection: Connection, now: datetime, limit: int) -> int:
    """How many were forgotten."""
    cursor = await connection.execute(
        """
        DELETE FROM idempotency WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM idempotency WHERE expires_at <= %s ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED))
        """,
        [now, limit],
    )
    return cursor.rowcount
