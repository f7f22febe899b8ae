"""The index of logs: how far each goes, and in which chunks its bytes lie. The bytes are in the file store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gyoza.models.errors import AttemptNotFound, RunNotFound
from gyoza.store.database import Connection


@dataclass(frozen=True)
class Chunk:
    """`size` bytes of a log, from `start` on, kept under `name`."""

    start: int
    size: int
    name: str


@dataclass(frozen=True)
class Log:
    """An attempt's log, and what of the attempt decides who may write to it and whether more will come.

    `ended`: nobody is expected to write any more: the attempt is settled, or over on a worker that is lost.
    """

    run_id: str
    attempt: int
    lease: str | None
    held_by: str | None
    settled: bool
    ended: bool
    size: int
    cut: bool
    last: Chunk | None


async def look(connection: Connection, run_id: str, attempt: int | None) -> Log:
    """The log of this attempt, of the current one by default. Raises RunNotFound or AttemptNotFound."""
    cursor = await connection.execute(
        """
        SELECT a.attempt, a.lease_token, a.held_by, a.settled_at IS NOT NULL,
            a.settled_at IS NOT NULL OR (a.finished_at IS NOT NULL AND w.evicted_at IS NOT NULL),
            coalesce(l.size, 0), coalesce(l.cut, false), c.start, c.size, c.name
        FROM runs r
        LEFT JOIN attempts a ON a.run_id = r.id AND a.attempt = coalesce(%s::integer, r.current_attempt)
        LEFT JOIN workers w ON w.id = a.held_by
        LEFT JOIN logs l ON l.run_id = a.run_id AND l.attempt = a.attempt
        LEFT JOIN LATERAL (
            SELECT start, size, name FROM log_chunks
            WHERE run_id = a.run_id AND attempt = a.attempt ORDER BY start DESC LIMIT 1
        ) c ON true
        WHERE r.id = %s
        """,
        [attempt, run_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise RunNotFound(run_id)
    if row[0] is None:
        raise AttemptNotFound(run_id, attempt or 0)
    return Log(run_id, *row[:7], last=None if row[7] is None else Chunk(*row[7:]))


async def lock(connection: Connection, run_id: str, attempt: int) -> None:
    """Until the transaction ends, nobody else adds to this log; the attempt itself stays free."""
    await connection.execute(
        """
        INSERT INTO logs (run_id, attempt) SELECT run_id, attempt FROM attempts WHERE run_id = %s AND attempt = %s
        ON CONFLICT DO NOTHING
        """,
        [run_id, attempt],
    )
    query = "SELECT 1 FROM logs WHERE run_id = %s AND attempt = %s FOR UPDATE"
    await connection.execute(query, [run_id, attempt])


async def extend(
    connection: Connection, run_id: str, attempt: int, chunks: Sequence[Chunk], *, size: int, cut: bool
) -> None:
    """From now on the log has `size` bytes; a chunk replaces the one that started where it does."""
    await connection.execute(
        """
        INSERT INTO log_chunks (run_id, attempt, start, size, name)
        SELECT %s, %s, start, size, name FROM unnest(%s::bigint[], %s::integer[], %s::text[]) AS new (start, size, name)
        ON CONFLICT (run_id, attempt, start) DO UPDATE SET size = excluded.size, name = excluded.name
        """,
        [run_id, attempt, *([list(each) for each in zip(*_rows(chunks), strict=True)])],
    )
    await connection.execute(
        "UPDATE logs SET size = %s, cut = %s WHERE run_id = %s AND attempt = %s", [size, cut, run_id, attempt]
    )


async def chunks(connection: Connection, run_id: str, attempt: int, start: int, limit: int) -> list[Chunk]:
    """The chunk that holds the byte at `start`, and those after it."""
    cursor = await connection.execute(
        """
        SELECT start, size, name FROM log_chunks
        WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND start >= (
            SELECT max(start) FROM log_chunks
            WHERE run_id = %(run_id)s AND attempt = %(attempt)s AND start <= %(start)s)
        ORDER BY start LIMIT %(limit)s
        """,
        {"run_id": run_id, "attempt": attempt, "start": start, "limit": limit},
    )
    return [Chunk(*row) for row in await cursor.fetchall()]


async def forget(connection: Connection, run_ids: Sequence[str], now: datetime) -> None:
    """The index forgets them at once; their bytes are due to be discarded."""
    await connection.execute(
        """
        WITH gone AS (DELETE FROM logs WHERE run_id = ANY(%(run_ids)s::uuid[]))
        INSERT INTO log_discards (run_id, due) SELECT unnest(%(run_ids)s::uuid[]), %(now)s ON CONFLICT DO NOTHING
        """,
        {"run_ids": run_ids, "now": now},
    )


async def to_discard(connection: Connection, now: datetime, limit: int) -> list[str]:
    """The runs whose logs' bytes are due to go, the longest due first."""
    query = "SELECT run_id::text FROM log_discards WHERE due <= %s ORDER BY due LIMIT %s"
    cursor = await connection.execute(query, [now, limit])
    return [run_id for (run_id,) in await cursor.fetchall()]


async def discarded(connection: Connection, gone: Sequence[str], left: Sequence[str], again: datetime) -> None:
    """The bytes of `gone` are gone; those of `left` could not be, and are due `again`."""
    if gone:
        await connection.execute("DELETE FROM log_discards WHERE run_id = ANY(%s::uuid[])", [gone])
    if left:
        await connection.execute("UPDATE log_discards SET due = %s WHERE run_id = ANY(%s::uuid[])", [again, left])


def _rows(chunks: Sequence[Chunk]) -> list[tuple[int, int, str]]:
    return [(chunk.start, chunk.size, chunk.name) for chunk in chunks]
