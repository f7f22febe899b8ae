"""The queue as placement sees it: the first few runs of each distinct shape, however many wait."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gyoza.models.reasons import INFRA_LOSS_LIMIT, RULES
from gyoza.models.resources import Constraints
from gyoza.policy.placement import Waiting
from gyoza.store.database import Connection

PER_SHAPE = 64
"""How many runs of one shape a round looks at: more would only wait for the same room."""
MOST = 2000
"""How many runs a round looks at in all, the first of every shape before the second of any."""

_ELSEWHERE = [reason.value for reason, rule in RULES.items() if rule.elsewhere]


async def admit(connection: Connection, now: datetime) -> None:
    """Runs that were to wait until now join the queue. Those that somebody is changing join the next time."""
    await connection.execute(
        """
        UPDATE runs SET due = true WHERE id = ANY(ARRAY(
            SELECT id FROM runs WHERE state = 'PENDING' AND NOT due AND run_at <= %s
            ORDER BY run_at LIMIT %s FOR UPDATE SKIP LOCKED))
        """,
        [now, MOST],
    )


async def window(connection: Connection, per_shape: int = PER_SHAPE) -> list[Waiting]:
    """Runs that may be placed now: due, and without an earlier attempt that still runs on a living worker.

    The distinct shapes are found by skipping through the index, not by reading the queue.
    """
    cursor = await connection.execute(
        """
        WITH RECURSIVE shapes AS (
            (SELECT shape FROM runs WHERE state = 'PENDING' AND due ORDER BY shape LIMIT 1)
            UNION ALL
            SELECT (
                SELECT r.shape FROM runs r WHERE r.state = 'PENDING' AND r.due AND r.shape > s.shape
                ORDER BY r.shape LIMIT 1
            ) FROM shapes s WHERE s.shape IS NOT NULL
        )
        SELECT r.id, r.current_attempt, r.queue_at, r.cpu_m, r.ram_mb, r.vram_mb, r.engines,
            CASE WHEN r.current_attempt = 1 THEN '{}' ELSE ARRAY(
                SELECT a.held_by FROM attempts a
                WHERE a.run_id = r.id AND a.attempt < r.current_attempt AND a.held_by IS NOT NULL
                    AND a.reason = ANY(%(elsewhere)s)
            ) END,
            r.user_failures + 1 < r.max_attempts AND r.infra_losses + 1 < %(infra_losses)s
        FROM shapes s, LATERAL (
            SELECT q.id, q.current_attempt, q.queue_at, q.cpu_m, q.ram_mb, q.vram_mb, q.engines,
                q.user_failures, q.infra_losses, q.max_attempts
            FROM runs q
            WHERE q.state = 'PENDING' AND q.due AND q.shape = s.shape
                AND (q.current_attempt = 1 OR NOT EXISTS (
                    SELECT FROM attempts a JOIN workers w ON w.id = a.held_by
                    WHERE a.run_id = q.id AND a.attempt < q.current_attempt AND a.settled_at IS NULL
                        AND w.evicted_at IS NULL))
            ORDER BY q.queue_at, q.id LIMIT %(per_shape)s
        ) r
        WHERE s.shape IS NOT NULL
        ORDER BY row_number() OVER (PARTITION BY s.shape ORDER BY r.queue_at, r.id), r.queue_at, r.id LIMIT %(most)s
        """,
        {"per_shape": per_shape, "most": MOST, "elsewhere": _ELSEWHERE, "infra_losses": INFRA_LOSS_LIMIT},
    )
    return [_waiting(row) for row in await cursor.fetchall()]


def _waiting(row: Sequence[Any]) -> Waiting:
    run_id, attempt, queue_at, cpu_m, ram_mb, vram_mb, engines, avoid, spare = row
    constraints = Constraints(cpu_m, ram_mb, vram_mb)
    return Waiting(run_id, attempt, queue_at, constraints, frozenset(engines), frozenset(avoid), spare)
