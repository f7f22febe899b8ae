"""Deleting runs whose time is over, a few at a time: with them go their attempts, events, tags, log index and feed."""

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString

from gyoza.store.database import Connection

_FREE: LiteralString = """
    NOT EXISTS (SELECT FROM attempts a JOIN workers w ON w.id = a.held_by
        WHERE a.run_id = r.id AND a.settled_at IS NULL AND w.evicted_at IS NULL)
    AND NOT EXISTS (SELECT FROM outbox o WHERE o.run_id = r.id)
"""
"""Nothing of it may still be running on a living worker, and nothing of it may wait to be published."""
_DUE: Sequence[LiteralString] = (
    "SELECT id FROM runs r WHERE delete_at <= %(now)s AND delete_at IS NOT NULL AND NOT pinned AND "
    + _FREE
    + "ORDER BY delete_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED",
    "SELECT id FROM runs r WHERE ended_at < %(ended_before)s AND ended_at IS NOT NULL AND delete_after_s IS NULL "
    "AND NOT pinned AND " + _FREE + "ORDER BY ended_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED",
)


async def lock_due(connection: Connection, ended_before: datetime | None, now: datetime, limit: int) -> Sequence[str]:
    """Runs that may go: past the time that they were given, or ended before `ended_before` (None: kept for ever).

    They are locked. Those that somebody is changing are left for the next time.
    """
    found: list[str] = []
    for query in _DUE:
        values = {"ended_before": ended_before, "now": now, "limit": limit - len(found)}
        cursor = await connection.execute(query, values)
        found += [row[0] for row in await cursor.fetchall()]
    return found


async def delete(connection: Connection, run_ids: Sequence[str]) -> None:
    """Everything that is known of these runs."""
    await connection.execute("DELETE FROM feed WHERE run_id = ANY(%s::uuid[])", [run_ids])
    await connection.execute("DELETE FROM runs WHERE id = ANY(%s::uuid[])", [run_ids])
