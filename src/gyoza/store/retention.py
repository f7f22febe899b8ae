"""Deleting runs whose time is over, a few at a time: with them go their attempts, events, tags, log index and feed."""

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import LiteralString

from gyoza.models.lifecycle import TERMINAL
from gyoza.store.database import Connection

_FREE: LiteralString = """
    r.state = ANY(%(terminal)s) AND NOT r.pinned
    AND NOT EXISTS (SELECT FROM attempts a JOIN workers w ON w.id = a.held_by
        WHERE a.run_id = r.id AND a.settled_at IS NULL AND w.evicted_at IS NULL)
    AND EXISTS (SELECT FROM feed f WHERE f.run_id = r.id AND f.n = r.next_event - 1)
"""
"""It is over, nothing of it may still be running on a living worker, and its last event, so every one, is published."""
_TAKEN: LiteralString = " LIMIT %(limit)s FOR UPDATE SKIP LOCKED"
_DUE: Sequence[LiteralString] = (
    "SELECT r.id, r.next_event FROM runs r WHERE r.delete_at <= %(now)s AND r.delete_at IS NOT NULL AND "
    + _FREE
    + "ORDER BY r.delete_at"
    + _TAKEN,
    "SELECT r.id, r.next_event FROM runs r "
    "WHERE r.ended_at < %(ended_before)s AND r.ended_at IS NOT NULL AND r.delete_after_s IS NULL AND "
    + _FREE
    + "ORDER BY r.ended_at"
    + _TAKEN,
)


async def lock_due(
    connection: Connection, ended_before: datetime | None, now: datetime, limit: int, events: int
) -> Sequence[str]:
    """Runs that may go: past the time that they were given, or ended before `ended_before` (None: kept for ever).

    At most `limit`, with at most so many `events` in all, but one run in any case. They are locked; those that somebody
    is changing are left for the next time.
    """
    found: list[tuple[str, int]] = []
    values = {"terminal": sorted(TERMINAL), "ended_before": ended_before, "now": now}
    for query in _DUE:
        cursor = await connection.execute(query, {**values, "limit": limit - len(found)})
        found += await cursor.fetchall()
    total = accumulate(count for _, count in found)
    within = [run_id for (run_id, _), sum_so_far in zip(found, total, strict=True) if sum_so_far <= events]
    return within or [run_id for run_id, _ in found[:1]]


async def delete(connection: Connection, run_ids: Sequence[str]) -> None:
    """Everything that is known of these runs."""
    await connection.execute("DELETE FROM feed WHERE run_id = ANY(%s::uuid[])", [run_ids])
    await connection.execute("DELETE FROM runs WHERE id = ANY(%s::uuid[])", [run_ids])
