"""A database full of runs as a busy team leaves them behind: most of them over, some failed, a few that wait or run."""

from collections.abc import Callable
from datetime import UTC, datetime

import psycopg

BASE = datetime(2026, 1, 1, tzinfo=UTC)
RARE = 5
"""How many runs, of however many, have what is rare; they are among the oldest."""


def run_id(n: int) -> str:
    """The id of the n-th run, the oldest first."""
    return f"01890000-0000-7000-8000-{n:012d}"


_RUNS = """
    INSERT INTO runs (id, state, priority, inputs, max_attempts, engines, cpu_m, image, op_definition, revision,
        next_event, queue_at, created_at, updated_at, submitted_by, tags, reason, worker_id, ended_at)
    SELECT ('01890000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, state, 5, '{"some": "inputs"}'::json, 1,
        '{docker}', 1000, image, op, 1, 10, at, at, at, who,
        CASE WHEN n < %(rare)s THEN '{rare}' ELSE ARRAY['tag-' || n %% 40, 'odd-' || n %% 2] END,
        CASE WHEN n < %(rare)s THEN 'disk_full' WHEN state = 'FAILED' THEN 'op_error' END,
        CASE WHEN state <> 'PENDING' THEN 'w' || n %% 50 END,
        CASE WHEN state IN ('COMPLETED', 'FAILED') THEN timestamptz '2027-01-01 00:00Z' END
    FROM (SELECT n, timestamptz '2026-01-01 00:00Z' + n * interval '1 s' AS at,
        CASE WHEN n < %(rare)s THEN 'FAILED' WHEN n >= %(runs)s - 500 THEN 'PENDING'
            WHEN n >= %(runs)s - 600 THEN 'RUNNING' WHEN n %% 20 = 3 THEN 'FAILED' ELSE 'COMPLETED' END AS state,
        CASE WHEN n < %(rare)s THEN 'image-rare' ELSE 'image-' || n %% 100 END AS image,
        CASE WHEN n < %(rare)s THEN 'op-rare' ELSE 'op-' || n %% 100 END AS op,
        CASE WHEN n < %(rare)s THEN 'user-rare' ELSE 'user-' || n %% 50 END AS who
        FROM generate_series(0, %(runs)s - 1) n) AS made
"""
_STEPS = (
    """
    INSERT INTO workers (id, instance, host_id, seq, resources, tags, engines, images, registered_at, seen_at)
    SELECT 'w' || n, 'i', 'h', 1, '{"cpu": 64, "ram_mb": 100000, "slots": 100}', '{}', '{docker}', '{}', now(), now()
    FROM generate_series(0, 49) n
    """,
    """
    INSERT INTO revisions (name, revision, digest, content, deployed_at)
    SELECT 'op-' || n, 1, 'd', '{"id": "op"}'::json, now() FROM generate_series(0, 99) n
    UNION ALL SELECT 'op-rare', 1, 'd', '{"id": "op"}'::json, now()
    """,
    _RUNS,
    "INSERT INTO run_tags (tag, created_at, run_id) SELECT unnest(tags), created_at, id FROM runs ORDER BY 1, 2",
    """
    INSERT INTO attempts (
        run_id, attempt, state, reason, held_by, lease_token, assigned_at, started_at, finished_at, settled_at,
        deadline)
    SELECT id, 1, state, reason, worker_id, CASE WHEN worker_id IS NOT NULL THEN 'lease' END,
        CASE WHEN worker_id IS NOT NULL THEN created_at END, CASE WHEN worker_id IS NOT NULL THEN created_at END,
        ended_at, ended_at, CASE WHEN state = 'RUNNING' THEN timestamptz '2027-01-01 00:00Z' END
    FROM runs
    """,
    """
    INSERT INTO events (run_id, n, attempt, type, t, msg)
    SELECT id, n, 1, 'PROGRESS', created_at, '50'::json FROM runs, generate_series(0, 9) n
    """,
    "INSERT INTO feed (run_id, n) SELECT run_id, n FROM events",
    "VACUUM ANALYZE",
)


def fill(connection: psycopg.Connection, runs: int, say: Callable[[str], None]) -> None:
    """Ten events a run. What lasts is not of interest here, so nothing waits for the disk."""
    connection.execute("SET synchronous_commit = off")
    connection.execute("SET maintenance_work_mem = '512MB'")
    for step in _STEPS:
        say(f"  {' '.join(step.split())[:60]} ...")
        connection.execute(step.encode(), {"runs": runs, "rare": RARE} if step is _RUNS else None)
