"""How attempts ended on each worker, newest first: read by their index, a few of each worker, and counted nowhere."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import LiteralString

from gyoza.models.reasons import Reason
from gyoza.policy.quarantine import BROKEN, FAILED, LEAST, NEWEST, RUNS, TELLING, WITHIN, Cause, Tally
from gyoza.store.database import Connection

_NEWEST: LiteralString = """
    SELECT a.run_id, a.reason FROM attempts a
    WHERE a.held_by = w.id AND a.finished_at IS NOT NULL AND a.finished_at > greatest(%(since)s, w.trusted_at)
        AND (a.reason IS NULL OR a.reason = ANY(%(failed)s))
    ORDER BY a.finished_at DESC LIMIT """
"""Of a worker `w`, since it was last trusted: those that completed, and those that failed for a reason that counts."""
CANARY_ENDED: LiteralString = """
    a.held_by = w.id AND a.finished_at IS NOT NULL AND a.finished_at >= w.canary_at AND a.assigned_at >= w.canary_at
        AND (a.reason IS NULL OR a.reason = ANY(%(telling)s))
"""
"""An attempt `a` is a canary of a worker `w` in quarantine, and ended so that it says something."""
TELLING_REASONS = sorted(TELLING)


async def is_doubtful(connection: Connection, now: datetime) -> bool:
    """Whether a worker is in quarantine, or failed just now and often of late: whether there is anything to judge."""
    cursor = await connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM workers w WHERE w.quarantined_at IS NOT NULL AND w.evicted_at IS NULL AND NOT w.drain
        ) OR EXISTS (
            SELECT FROM workers w
            WHERE w.evicted_at IS NULL AND NOT w.drain
                AND (SELECT last.reason FROM ("""
        + _NEWEST
        + """1) last) IS NOT NULL
                AND (SELECT count(newest.reason) FROM ("""
        + _NEWEST
        + """%(newest)s) newest) >= %(least)s)
        """,
        {**_values(now), "least": LEAST},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def tallies(connection: Connection, now: datetime) -> Sequence[Tally]:
    """The newest endings of every living worker, by what was run; a run counts once, however often it was tried."""
    cursor = await connection.execute(
        """
        SELECT w.id, coalesce(r.op_definition, r.image, ''), count(DISTINCT ended.run_id),
            count(DISTINCT ended.run_id) FILTER (WHERE ended.reason = ANY(%(broken)s)),
            count(DISTINCT ended.run_id) FILTER (WHERE ended.reason IS NOT NULL)
        FROM workers w, LATERAL ("""
        + _NEWEST
        + """%(newest)s) ended JOIN runs r ON r.id = ended.run_id
        WHERE w.evicted_at IS NULL
        GROUP BY 1, 2
        """,
        {**_values(now), "broken": sorted(BROKEN)},
    )
    return [Tally(*row) for row in await cursor.fetchall()]


async def canaries(connection: Connection, now: datetime) -> Mapping[str, Reason | None]:
    """How the newest canary of each worker in quarantine ended; None: it completed.

    Or has run for long, where attempts were broken: that it runs is what was to be shown.
    """
    cursor = await connection.execute(
        "SELECT w.id, ended.reason FROM workers w, LATERAL (SELECT a.reason FROM attempts a WHERE "
        + CANARY_ENDED
        + """ORDER BY a.finished_at DESC LIMIT 1) ended WHERE w.quarantined_at IS NOT NULL
        UNION ALL
        SELECT w.id, NULL FROM workers w JOIN attempts a ON a.held_by = w.id
        WHERE w.quarantine_cause = %(broken)s AND a.settled_at IS NULL AND a.finished_at IS NULL
            AND a.assigned_at >= w.canary_at AND a.started_at <= %(since)s
        """,
        {"telling": TELLING_REASONS, "broken": Cause.BROKEN, "since": now - RUNS},
    )
    return {worker_id: Reason(reason) if reason else None for worker_id, reason in await cursor.fetchall()}


def _values(now: datetime) -> dict[str, object]:
    return {"since": now - WITHIN, "failed": sorted(FAILED), "newest": NEWEST}
