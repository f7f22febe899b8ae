"""Attempts: what of them decides (`Try`), what a worker holds, and how they are read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gyoza.models.definition import Execution, Timeouts
from gyoza.models.lifecycle import OpRunState
from gyoza.models.reasons import Reason
from gyoza.models.resources import Constraints
from gyoza.models.run import EventEntry, ExecutionSummary, OpAttempt, time_to_wire
from gyoza.policy.deadline import PATIENCE_S
from gyoza.policy.life import Try
from gyoza.store import events
from gyoza.store.database import Connection


async def tries(connection: Connection, run_ids: Sequence[str], named: Sequence[int]) -> Mapping[str, dict[int, Try]]:
    """Of each run the current attempt, those earlier ones that are not settled, and those with a number in `named`."""
    cursor = await connection.execute(
        """
        SELECT a.run_id, a.attempt, a.state, a.progress, a.reason, a.summary, a.held_by, a.lease_token, a.gpu_ids,
            a.last_report, a.assigned_at, a.acknowledged_at, a.started_at, a.finished_at, a.settled_at, a.deadline
        FROM attempts a JOIN runs r ON r.id = a.run_id
        WHERE a.run_id = ANY(%s::uuid[])
            AND (a.attempt = r.current_attempt OR a.settled_at IS NULL OR a.attempt = ANY(%s::integer[]))
        """,
        [run_ids, named],
    )
    found: defaultdict[str, dict[int, Try]] = defaultdict(dict)
    async for row in cursor:
        found[row[0]][row[1]] = _try(row[1:])
    return found


async def write(connection: Connection, changed: Iterable[tuple[str, Try]]) -> None:
    """New attempts take the run's constraints; outputs stay as they are where a change brings none."""
    await connection.execute(
        """
        INSERT INTO attempts (
            run_id, attempt, state, progress, outputs, reason, summary, held_by, lease_token, gpu_ids, last_report,
            assigned_at, acknowledged_at, started_at, finished_at, settled_at, deadline, cpu_m, ram_mb, vram_mb)
        SELECT
            new.run_id, new.attempt, new.state, new.progress, new.outputs, new.reason, new.summary, new.held_by,
            new.lease_token, new.gpu_ids, new.last_report, new.assigned_at, new.acknowledged_at, new.started_at,
            new.finished_at, new.settled_at, new.deadline, r.cpu_m, r.ram_mb, r.vram_mb
        FROM json_to_recordset(%s::json) AS new (
            run_id uuid, attempt integer, state text, progress integer, outputs json, reason text, summary json,
            held_by text, lease_token text, gpu_ids integer[], last_report integer, assigned_at timestamptz,
            acknowledged_at timestamptz, started_at timestamptz, finished_at timestamptz, settled_at timestamptz,
            deadline timestamptz)
        JOIN runs r ON r.id = new.run_id
        ON CONFLICT (run_id, attempt) DO UPDATE SET
            state = excluded.state, progress = excluded.progress,
            outputs = coalesce(excluded.outputs, attempts.outputs), reason = excluded.reason,
            summary = excluded.summary, held_by = excluded.held_by, lease_token = excluded.lease_token,
            gpu_ids = excluded.gpu_ids, last_report = excluded.last_report, assigned_at = excluded.assigned_at,
            acknowledged_at = excluded.acknowledged_at, started_at = excluded.started_at,
            finished_at = excluded.finished_at, settled_at = excluded.settled_at, deadline = excluded.deadline
        """,
        [msgspec.json.encode([_row(run_id, tried) for run_id, tried in changed]).decode()],
    )


@dataclass(frozen=True)
class Held:
    """An attempt that a worker holds and that is not settled. `live`: the run's current attempt, and not over."""

    run_id: str
    attempt: int
    state: OpRunState
    reason: Reason | None
    acknowledged_at: datetime | None
    live: bool

    @property
    def name(self) -> tuple[str, int]:
        return self.run_id, self.attempt

    @property
    def is_assigned(self) -> bool:
        """Handed out and not started."""
        return self.live and self.state is OpRunState.ASSIGNED


_EXECUTION = Execution().to_dict()


@dataclass(frozen=True)
class Assigned:
    """All that a worker needs to run an attempt. JSON members are as they were received; `spec` is the definition's.

    `image_digest` is what an earlier attempt of the run was run from, by the word of its worker: the one pin of a run.
    """

    run_id: str
    attempt: int
    lease: str
    op_definition: str | None
    image: str | None
    inputs: Any
    constraints: Constraints
    gpu_ids: Sequence[int]
    timeouts: Any
    image_digest: str | None
    spec: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "attempt": self.attempt,
            "lease_token": self.lease,
            "op_definition": self.op_definition,
            "image": self.image,
            "image_digest": self.image_digest,
            "bundle": self.spec.get("bundle"),
            "inputs": self.inputs,
            "constraints": self.constraints.to_dict(),
            "gpu_ids": list(self.gpu_ids),
            "execution": {**_EXECUTION, **msgspec.json.decode(self.spec.get("execution", b"{}"))},
            "timeouts": self.timeouts or Timeouts().to_dict(),
            "input_specs": self.spec.get("input_specs", {}),
            "output_specs": self.spec.get("output_specs", {}),
        }


async def held_by(connection: Connection, worker_id: str) -> list[Held]:
    cursor = await connection.execute(
        """
        SELECT a.run_id, a.attempt, a.state, a.reason, a.acknowledged_at,
            r.current_attempt = a.attempt AND a.finished_at IS NULL
        FROM attempts a JOIN runs r ON r.id = a.run_id
        WHERE a.held_by = %s AND a.settled_at IS NULL ORDER BY a.assigned_at, a.run_id
        """,
        [worker_id],
    )
    return [
        Held(run_id, attempt, OpRunState(state), Reason(reason) if reason else None, acknowledged_at, live)
        for run_id, attempt, state, reason, acknowledged_at, live in await cursor.fetchall()
    ]


async def patience(connection: Connection, worker_id: str) -> dict[tuple[str, int], float]:
    """For how many seconds a worker may be silent until an attempt that it has taken up is given up.

    By (run id, attempt), of those attempts whose definition says so.
    """
    cursor = await connection.execute(
        """
        SELECT a.run_id, a.attempt, (d.content->'execution'->>'server_lost_s')::float
        FROM attempts a
        JOIN runs r ON r.id = a.run_id AND r.current_attempt = a.attempt
        JOIN revisions d ON d.name = r.op_definition AND d.revision = r.revision
        WHERE a.held_by = %s AND a.settled_at IS NULL AND a.finished_at IS NULL AND a.acknowledged_at IS NOT NULL
            AND d.content->'execution'->>'server_lost_s' IS NOT NULL
        """,
        [worker_id],
    )
    return {(run_id, attempt): seconds for run_id, attempt, seconds in await cursor.fetchall()}


async def assigned(connection: Connection, wanted: Sequence[Held]) -> list[Assigned]:
    cursor = await connection.execute(
        """
        SELECT a.run_id, a.attempt, a.lease_token, r.op_definition, r.image, r.inputs, a.cpu_m, a.ram_mb, a.vram_mb,
            a.gpu_ids, r.timeouts, pin.image_digest, d.content
        FROM json_to_recordset(%s::json) AS w (run_id uuid, attempt integer)
        JOIN attempts a ON a.run_id = w.run_id AND a.attempt = w.attempt
        JOIN runs r ON r.id = a.run_id
        LEFT JOIN revisions d ON d.name = r.op_definition AND d.revision = r.revision
        LEFT JOIN LATERAL (
            SELECT p.summary ->> 'image_digest' AS image_digest FROM attempts p
            WHERE p.run_id = a.run_id AND p.attempt < a.attempt AND p.summary ->> 'image_digest' IS NOT NULL
            ORDER BY p.attempt LIMIT 1
        ) AS pin ON true
        ORDER BY a.assigned_at, a.run_id
        """,
        [msgspec.json.encode([{"run_id": each.run_id, "attempt": each.attempt} for each in wanted]).decode()],
    )
    return [_assigned(row) for row in await cursor.fetchall()]


def _assigned(row: Sequence[Any]) -> Assigned:
    run_id, attempt, lease, op_definition, image, inputs, cpu_m, ram_mb, vram_mb, gpu_ids, timeouts = row[:11]
    pinned, content = row[11:]
    spec = msgspec.json.decode(content, type=dict[str, msgspec.Raw]) if content is not None else {}
    constraints = Constraints(cpu_m, ram_mb, vram_mb)
    return Assigned(run_id, attempt, lease, op_definition, image, inputs, constraints, gpu_ids, timeouts, pinned, spec)


async def overdue(connection: Connection, now: datetime, limit: int) -> list[tuple[str, int]]:
    """Those that are not over and beyond their deadline, the oldest first.

    What runs on a worker that is waited for, or that has just registered, may have ended in time: the worker is to
    speak first.
    """
    cursor = await connection.execute(
        """
        SELECT a.run_id, a.attempt FROM attempts a
        WHERE a.deadline IS NOT NULL AND a.finished_at IS NULL AND a.deadline <= %(now)s
            AND NOT (a.state = 'RUNNING' AND EXISTS (
                SELECT FROM workers w WHERE w.id = a.held_by
                    AND (w.evicted_at IS NOT NULL OR w.registered_at > %(since)s)))
        ORDER BY a.deadline LIMIT %(limit)s
        """,
        {"now": now, "since": now - timedelta(seconds=PATIENCE_S), "limit": limit},
    )
    return await cursor.fetchall()


async def of_run(connection: Connection, run_id: str) -> list[OpAttempt]:
    """The whole history, oldest first, each with its newest events."""
    cursor = await connection.execute(
        """
        SELECT a.id, a.run_id, a.attempt, a.state, a.progress, r.inputs, a.outputs, a.summary, a.cpu_m, a.ram_mb,
            a.vram_mb, a.started_at, a.finished_at, a.reason, a.settled_at
        FROM attempts a JOIN runs r ON r.id = a.run_id WHERE a.run_id = %s ORDER BY a.attempt
        """,
        [run_id],
    )
    rows = await cursor.fetchall()
    return [_attempt(row, await events.newest(connection, run_id, row[2])) for row in rows]


def _attempt(row: Sequence[Any], newest: Sequence[EventEntry]) -> OpAttempt:
    (attempt_id, run_id, attempt, state, progress, inputs, outputs, summary, cpu_m, ram_mb, vram_mb) = row[:11]
    started_at, finished_at, reason, settled_at = row[11:]
    return OpAttempt(
        id=attempt_id,
        op_run_id=run_id,
        attempt=attempt,
        state=OpRunState(state),
        progress=progress,
        events=newest,
        inputs=inputs,
        outputs=outputs,
        execution_summary=ExecutionSummary.from_dict(msgspec.json.decode(summary)),
        constraints=Constraints(cpu_m, ram_mb, vram_mb),
        started_at=started_at,
        finished_at=finished_at,
        reason=reason,
        settled_at=settled_at,
    )


def _try(row: Sequence[Any]) -> Try:
    (attempt, state, progress, reason, summary, held_by, lease, gpu_ids, last_report) = row[:9]
    assigned_at, acknowledged_at, started_at, finished_at, settled_at, deadline = row[9:]
    return Try(
        attempt=attempt,
        state=OpRunState(state),
        progress=progress,
        reason=Reason(reason) if reason else None,
        summary=ExecutionSummary.from_dict(msgspec.json.decode(summary)),
        held_by=held_by,
        lease=lease,
        gpu_ids=tuple(gpu_ids),
        last_report=last_report,
        assigned_at=assigned_at,
        acknowledged_at=acknowledged_at,
        started_at=started_at,
        finished_at=finished_at,
        settled_at=settled_at,
        deadline=deadline,
    )


def _row(run_id: str, tried: Try) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "attempt": tried.attempt,
        "state": tried.state,
        "progress": tried.progress,
        "outputs": tried.outputs,
        "reason": tried.reason,
        "summary": {name: value for name, value in tried.summary.to_dict().items() if value is not None},
        "held_by": tried.held_by,
        "lease_token": tried.lease,
        "gpu_ids": tried.gpu_ids,
        "last_report": tried.last_report,
        "assigned_at": time_to_wire(tried.assigned_at),
        "acknowledged_at": time_to_wire(tried.acknowledged_at),
        "started_at": time_to_wire(tried.started_at),
        "finished_at": time_to_wire(tried.finished_at),
        "settled_at": time_to_wire(tried.settled_at),
        "deadline": time_to_wire(tried.deadline),
    }
