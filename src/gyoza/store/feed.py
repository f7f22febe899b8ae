"""The feed: every published event of the cluster by its position, in one order for all who read.

A reader keeps the last position that it has seen and asks for what lies above. Positions rise and have holes: some were
never used, and those of deleted runs are gone. Events of one run come in the order of their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gyoza.models.lifecycle import LEADS_TO, EventType, OpRunState
from gyoza.models.run import EventEntry
from gyoza.store.database import Connection


@dataclass(frozen=True)
class Position:
    """Where in the feed an event stands."""

    pos: int
    run_id: str
    n: int


@dataclass(frozen=True)
class Entry:
    """An event with what readers need beside it.

    `pos` is 0 where it was read as the run's, not as the feed's. `state`: the run's after this event. `is_newest`: the
    run has no later event. JSON members of the event are as they were received.
    """

    pos: int
    run_id: str
    op_definition: str | None
    tags: Sequence[str]
    event: EventEntry
    state: OpRunState
    is_newest: bool

    @property
    def is_end(self) -> bool:
        """The run is over with it, and nobody has retried it when this was read."""
        return self.is_newest and self.state.is_terminal


_EVENT = """
    e.run_id, r.op_definition, r.tags, r.next_event = e.n + 1,
    CASE WHEN e.type NOT IN ('INFO', 'ERROR') THEN e.type ELSE (
        SELECT m.type FROM events m
        WHERE m.run_id = e.run_id AND m.n < e.n AND m.type NOT IN ('INFO', 'ERROR', 'PROGRESS')
        ORDER BY m.n DESC LIMIT 1
    ) END,
    e.n, e.attempt, e.type, e.t, e.at, e.msg, e.payload
"""
"""The fifth is the event that led to the run's state after this one; null where none has moved it yet.

The types are those of `lifecycle.NOTES`, and PROGRESS, before which a run was RUNNING already.
"""


async def newest(connection: Connection) -> int:
    """The highest position, 0 in an empty feed: all that is published later lies above."""
    cursor = await connection.execute("SELECT coalesce(max(pos), 0) FROM feed")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def positions(connection: Connection, after: int, limit: int) -> list[Position]:
    """The next ones above a position. Fewer than `limit`: these are all."""
    cursor = await connection.execute(
        "SELECT pos, run_id, n FROM feed WHERE pos > %s ORDER BY pos LIMIT %s", [after, limit]
    )
    return [Position(*row) for row in await cursor.fetchall()]


async def entries(connection: Connection, wanted: Sequence[Position]) -> list[Entry]:
    """What stands at these positions, in the order of positions, without what is deleted."""
    cursor = await connection.execute(
        f"""
        SELECT w.pos, {_EVENT}
        FROM json_to_recordset(%s::json) AS w (pos bigint, run_id uuid, n integer)
        JOIN events e ON e.run_id = w.run_id AND e.n = w.n
        JOIN runs r ON r.id = e.run_id
        ORDER BY w.pos
        """,
        [msgspec.json.encode(wanted).decode()],
    )
    return [_entry(row) for row in await cursor.fetchall()]


async def of_run(connection: Connection, run_id: str, after: int, limit: int) -> list[Entry]:
    """A run's events with a number above `after`, published or not."""
    cursor = await connection.execute(
        f"""
        SELECT 0, {_EVENT}
        FROM events e JOIN runs r ON r.id = e.run_id
        WHERE e.run_id = %s AND e.n > %s ORDER BY e.n LIMIT %s
        """,
        [run_id, after, limit],
    )
    return [_entry(row) for row in await cursor.fetchall()]


def _entry(row: Sequence[Any]) -> Entry:
    pos, run_id, op_definition, tags, is_newest, moved_by, n, attempt, kind, t, at, msg, payload = row
    return Entry(
        pos=pos,
        run_id=run_id,
        op_definition=op_definition,
        tags=tags,
        event=EventEntry(id=n, type=EventType(kind), t=t, msg=msg, payload=payload, attempt=attempt, at=at),
        state=OpRunState.PENDING if moved_by is None else LEADS_TO[moved_by],
        is_newest=is_newest,
    )
