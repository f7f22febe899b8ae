"""Events: append only, numbered within their run by the row that was locked for the change."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gyoza.models.lifecycle import EventType
from gyoza.models.run import NEWEST_EVENTS, EventEntry, time_to_wire
from gyoza.store.database import Connection


async def insert(connection: Connection, entries: Iterable[tuple[str, EventEntry]]) -> None:
    """Each into the outbox too. A run is locked by who writes its events, so its ids there rise with their numbers."""
    rows = [_row(run_id, entry) for run_id, entry in entries]
    if not rows:
        return
    await connection.execute(
        """
        WITH written AS (
            INSERT INTO events (run_id, n, attempt, type, t, at, msg, payload)
            SELECT run_id, n, attempt, type, t, at, msg, payload
            FROM json_to_recordset(%s::json) AS new (
                run_id uuid, n integer, attempt integer, type text, t timestamptz, at timestamptz, msg json,
                payload json)
            RETURNING run_id, n
        )
        INSERT INTO outbox (run_id, n) SELECT run_id, n FROM written ORDER BY run_id, n
        """,
        [msgspec.json.encode(rows).decode()],
    )


async def newest(connection: Connection, run_id: str, attempt: int) -> list[EventEntry]:
    """The newest of one attempt, in their order."""
    cursor = await connection.execute(
        """
        SELECT n, attempt, type, t, at, msg, payload FROM events
        WHERE run_id = %s AND attempt = %s ORDER BY n DESC LIMIT %s
        """,
        [run_id, attempt, NEWEST_EVENTS],
    )
    return [_entry(row) for row in reversed(await cursor.fetchall())]


async def page(connection: Connection, run_id: str, *, after: int, attempt: int | None, limit: int) -> list[EventEntry]:
    """Those with a number above `after`, of one attempt or of all."""
    cursor = await connection.execute(
        """
        SELECT n, attempt, type, t, at, msg, payload FROM events
        WHERE run_id = %s AND n > %s AND (%s::integer IS NULL OR attempt = %s) ORDER BY n LIMIT %s
        """,
        [run_id, after, attempt, attempt, limit],
    )
    return [_entry(row) for row in await cursor.fetchall()]


def _entry(row: Sequence[Any]) -> EventEntry:
    n, attempt, kind, t, at, msg, payload = row
    return EventEntry(id=n, type=EventType(kind), t=t, msg=msg, payload=payload, attempt=attempt, at=at)


def _row(run_id: str, entry: EventEntry) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "n": entry.id,
        "attempt": entry.attempt,
        "type": entry.type,
        "t": time_to_wire(entry.t),
        "at": time_to_wire(entry.at),
        "msg": entry.msg,
        "payload": entry.payload,
    }
