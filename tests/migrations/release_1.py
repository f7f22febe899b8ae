"""What a server that knows step 0001 alone says to its database, word for word: the statements by which it writes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

Row = Mapping[str, Any]


class Server:
    """One that was started before the next step, and goes on while another one migrates."""

    def __init__(self, connection: psycopg.Connection):
        self._connection = connection

    def _say(self, query: str, values: Any) -> Any:
        cursor = self._connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else cursor.rowcount

    def submit(self, *runs: Row) -> None:
        absent = dict.fromkeys(("op_definition", "revision", "version", "cpu_m", "ram_mb", "vram_mb", "event_delivery"))
        common = {**absent, "timeouts": None, "tags": [], "inputs": {}, "priority": 5, "max_attempts": 1}
        common |= {"submitted_by": "api", "engines": ["docker"], "image": "busybox"}
        self._say(
            """
            WITH made AS (
                INSERT INTO runs (
                    id, state, priority, image, op_definition, revision, version, inputs, cpu_m, ram_mb, vram_mb,
                    max_attempts, event_delivery, timeouts, tags, submitted_by, engines, queue_at, created_at,
                    updated_at)
                SELECT
                    id, 'PENDING', priority, image, op_definition, revision, version, inputs, cpu_m, ram_mb, vram_mb,
                    max_attempts, event_delivery, timeouts, tags, submitted_by, engines, queue_at, created_at,
                    created_at
                FROM json_to_recordset(%s::json) AS r (
                    id uuid, priority integer, image text, op_definition text, revision integer, version text,
                    inputs json,
                    cpu_m integer, ram_mb integer, vram_mb integer, max_attempts integer, event_delivery json,
                    timeouts json, tags text[], submitted_by text, engines text[], queue_at timestamptz,
                    created_at timestamptz)
                RETURNING id, cpu_m, ram_mb, vram_mb
            )
            INSERT INTO attempts (run_id, attempt, state, cpu_m, ram_mb, vram_mb)
            SELECT id, 1, 'PENDING', cpu_m, ram_mb, vram_mb FROM made
            """,
            [_rows({**common, **run} for run in runs)],
        )

    def change(self, now: datetime, run: Row, attempts: Sequence[Row], types: Sequence[str]) -> None:
        """A run that changes: locked, then written, with its attempts, and events of these types for the last one."""
        found = self._say(
            """
            SELECT id, current_attempt, priority, queue_at, max_attempts, user_failures, infra_losses, next_event,
                updated_at
            FROM runs WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE
            """,
            [[run["id"]]],
        )
        self._say(
            """
            SELECT a.run_id, a.attempt, a.state, a.progress, a.reason, a.summary, a.held_by, a.lease_token, a.gpu_ids,
                a.last_report, a.assigned_at, a.acknowledged_at, a.started_at, a.finished_at, a.settled_at
            FROM attempts a JOIN runs r ON r.id = a.run_id
            WHERE a.run_id = ANY(%s::uuid[])
                AND (a.attempt = r.current_attempt OR a.settled_at IS NULL OR a.attempt = ANY(%s::integer[]))
            """,
            [[run["id"]], []],
        )
        _, current, _, queue_at, _, user_failures, infra_losses, next_event, _ = found[0]
        was = {"current_attempt": current, "queue_at": queue_at, "user_failures": user_failures}
        was |= {"infra_losses": infra_losses, "was": next_event, "next_event": next_event + len(types)}
        written = self._say(
            """
            UPDATE runs SET
                state = new.state, current_attempt = new.current_attempt, queue_at = new.queue_at,
                user_failures = new.user_failures, infra_losses = new.infra_losses,
                next_event = new.next_event, updated_at = %s
            FROM json_to_recordset(%s::json) AS new (
                id uuid, state text, current_attempt integer, queue_at timestamptz, user_failures integer,
                infra_losses integer, next_event integer, was integer)
            WHERE runs.id = new.id AND runs.next_event = new.was
            """,
            [now, _rows([{**was, **run}])],
        )
        assert written == 1
        absent = dict.fromkeys(("outputs", "reason", "held_by", "lease_token", "assigned_at", "acknowledged_at"))
        absent |= dict.fromkeys(("started_at", "finished_at", "settled_at"))
        common = {**absent, "run_id": run["id"], "progress": 0, "summary": {}, "gpu_ids": [], "last_report": 0}
        self._say(
            """
            INSERT INTO attempts (
                run_id, attempt, state, progress, outputs, reason, summary, held_by, lease_token, gpu_ids, last_report,
                assigned_at, acknowledged_at, started_at, finished_at, settled_at, cpu_m, ram_mb, vram_mb)
            SELECT
                new.run_id, new.attempt, new.state, new.progress, new.outputs, new.reason, new.summary, new.held_by,
                new.lease_token, new.gpu_ids, new.last_report, new.assigned_at, new.acknowledged_at, new.started_at,
                new.finished_at, new.settled_at, r.cpu_m, r.ram_mb, r.vram_mb
            FROM json_to_recordset(%s::json) AS new (
                run_id uuid, attempt integer, state text, progress integer, outputs json, reason text, summary json,
                held_by text, lease_token text, gpu_ids integer[], last_report integer, assigned_at timestamptz,
                acknowledged_at timestamptz, started_at timestamptz, finished_at timestamptz, settled_at timestamptz)
            JOIN runs r ON r.id = new.run_id
            ON CONFLICT (run_id, attempt) DO UPDATE SET
                state = excluded.state, progress = excluded.progress,
                outputs = coalesce(excluded.outputs, attempts.outputs), reason = excluded.reason,
                summary = excluded.summary, held_by = excluded.held_by, lease_token = excluded.lease_token,
                gpu_ids = excluded.gpu_ids, last_report = excluded.last_report, assigned_at = excluded.assigned_at,
                acknowledged_at = excluded.acknowledged_at, started_at = excluded.started_at,
                finished_at = excluded.finished_at, settled_at = excluded.settled_at
            """,
            [_rows({**common, **attempt} for attempt in attempts)],
        )
        said = {
            "run_id": run["id"],
            "attempt": attempts[-1]["attempt"],
            "t": now,
            "at": None,
            "msg": "",
            "payload": None,
        }
        self._say(
            """
            INSERT INTO events (run_id, n, attempt, type, t, at, msg, payload)
            SELECT run_id, n, attempt, type, t, at, msg, payload
            FROM json_to_recordset(%s::json) AS new (
                run_id uuid, n integer, attempt integer, type text, t timestamptz, at timestamptz, msg json,
                payload json)
            """,
            [_rows({**said, "n": n, "type": type} for n, type in enumerate(types, start=next_event))],
        )

    def reprioritise(self, run_id: str, priority: int, queue_at: datetime, now: datetime) -> None:
        self._say(
            "UPDATE runs SET priority = %s, queue_at = %s, updated_at = %s WHERE id = %s",
            [priority, queue_at, now, run_id],
        )

    def queue(self, now: datetime) -> list[str]:
        """The ids of the runs that it would place."""
        found = self._say(
            """
            WITH RECURSIVE shapes AS (
                (SELECT shape FROM runs WHERE state = 'PENDING' ORDER BY shape LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT r.shape FROM runs r WHERE r.state = 'PENDING' AND r.shape > s.shape ORDER BY r.shape LIMIT 1
                ) FROM shapes s WHERE s.shape IS NOT NULL
            )
            SELECT r.id, r.current_attempt, r.queue_at, r.cpu_m, r.ram_mb, r.vram_mb, r.engines,
                CASE WHEN r.current_attempt = 1 THEN '{}' ELSE ARRAY(
                    SELECT a.held_by FROM attempts a
                    WHERE a.run_id = r.id AND a.attempt < r.current_attempt AND a.held_by IS NOT NULL
                        AND a.reason = ANY(%(elsewhere)s)
                ) END
            FROM shapes s, LATERAL (
                SELECT q.id, q.current_attempt, q.queue_at, q.cpu_m, q.ram_mb, q.vram_mb, q.engines FROM runs q
                WHERE q.state = 'PENDING' AND q.shape = s.shape AND (q.run_at IS NULL OR q.run_at <= %(now)s)
                    AND (q.current_attempt = 1 OR NOT EXISTS (
                        SELECT FROM attempts a JOIN workers w ON w.id = a.held_by
                        WHERE a.run_id = q.id AND a.attempt < q.current_attempt AND a.settled_at IS NULL
                            AND w.evicted_at IS NULL))
                ORDER BY q.queue_at, q.id LIMIT %(per_shape)s
            ) r
            WHERE s.shape IS NOT NULL
            ORDER BY row_number() OVER (PARTITION BY s.shape ORDER BY r.queue_at, r.id), r.queue_at, r.id LIMIT %(most)s
            """,
            {"now": now, "per_shape": 64, "most": 2000, "elsewhere": ["worker_lost"]},
        )
        return [str(row[0]) for row in found]

    def unacknowledged(self, now: datetime) -> list[str]:
        found = self._say(
            """
            SELECT a.run_id, a.attempt FROM attempts a JOIN runs r ON r.id = a.run_id
            WHERE a.held_by IS NOT NULL AND a.settled_at IS NULL AND a.state = 'ASSIGNED' AND a.acknowledged_at IS NULL
                AND a.assigned_at < %s - make_interval(secs => coalesce((r.timeouts->>'start_s')::float, %s))
            ORDER BY a.run_id LIMIT 1000
            """,
            [now, 60.0],
        )
        return [str(row[0]) for row in found]

    def show(self, run_id: str) -> tuple[Any, ...]:
        """State, attempt and reason, of all that it reads."""
        (row,) = self._say(
            """
            SELECT r.id, r.state, r.priority, r.image, r.op_definition, r.inputs, a.outputs, r.cpu_m, r.ram_mb,
            r.vram_mb,
                r.max_attempts, r.event_delivery, a.progress, r.current_attempt, a.summary, r.created_at, r.updated_at,
                a.reason, r.version, r.revision, r.submitted_by, r.tags, r.run_at, r.timeouts, r.user_failures,
                r.infra_losses, r.next_event, r.queue_at
            FROM runs r JOIN attempts a ON a.run_id = r.id AND a.attempt = r.current_attempt WHERE r.id = %s
            """,
            [run_id],
        )
        return row[1], row[13], row[17]

    def deploy(self, name: str, version: str | None, digest: str, content: Row, now: datetime) -> int:
        """The revision."""
        columns = "name, revision, version, digest, content, deployed_at"
        self._say("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        again = self._say(
            "UPDATE revisions SET deployed_at = %s WHERE name = %s AND digest = %s RETURNING " + columns,
            [now, name, digest],
        )
        if again:
            return again[0][1]
        values = {"name": name, "version": version, "digest": digest, "content": json.dumps(content), "now": now}
        made = self._say(
            "INSERT INTO revisions (name, revision, version, digest, content, deployed_at) "
            "SELECT %(name)s, coalesce(max(revision), 0) + 1, %(version)s, %(digest)s, %(content)s, %(now)s "
            "FROM revisions WHERE name = %(name)s RETURNING " + columns,
            values,
        )
        return made[0][1]

    def definitions(self) -> list[tuple[str, str | None, int]]:
        found = self._say(
            "SELECT DISTINCT ON (name, version) name, revision, version, digest, content, deployed_at FROM revisions "
            "ORDER BY name, version, deployed_at DESC, revision DESC",
            None,
        )
        return [(name, version, revision) for name, revision, version, *_ in found]

    def beat(self, worker: str, seq: int, now: datetime) -> None:
        """A heartbeat, or the registration that it becomes."""
        values = {
            "id": worker,
            "instance": "i",
            "seq": seq,
            "host_id": "h",
            "tags": [],
            "engines": ["docker"],
            "now": now,
        }
        values |= {"resources": '{"cpu": 4, "ram_mb": 4096, "slots": 8, "gpus": []}', "version": None, "images": []}
        known = self._say(
            """
            UPDATE workers SET seq = %(seq)s, resources = %(resources)s, tags = %(tags)s, engines = %(engines)s,
                version = %(version)s, images = %(images)s, seen_at = %(now)s
            FROM (SELECT id, seen_at FROM workers WHERE id = %(id)s FOR NO KEY UPDATE) AS was
            WHERE workers.id = was.id AND instance = %(instance)s AND evicted_at IS NULL AND NOT forgotten
                AND seq < %(seq)s
            RETURNING drain, was.seen_at
            """,
            values,
        )
        if not known:
            self._say(
                """
                INSERT INTO workers (
                    id, instance, former, host_id, seq, resources, tags, engines, version, images,
                    registered_at, seen_at)
                VALUES (%(id)s, %(instance)s, %(former)s, %(host_id)s, %(seq)s, %(resources)s, %(tags)s, %(engines)s,
                    %(version)s, %(images)s, %(now)s, %(now)s)
                ON CONFLICT (id) DO UPDATE SET
                    instance = excluded.instance, former = excluded.former, host_id = excluded.host_id,
                    seq = excluded.seq, resources = excluded.resources, tags = excluded.tags,
                    engines = excluded.engines, version = excluded.version, images = excluded.images,
                    seen_at = excluded.seen_at, registered_at = excluded.registered_at, evicted_at = NULL,
                    forgotten = false, drain = workers.drain AND NOT workers.forgotten
                """,
                {**values, "former": []},
            )


def _rows(rows: Iterable[Row]) -> str:
    return json.dumps(list(rows), default=str)
