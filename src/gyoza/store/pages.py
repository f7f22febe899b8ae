"""Reading runs: one, or a page of them, newest first by (created_at, id)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

import msgspec

from gyoza.models.definition import EventDelivery, RetryPolicy, Timeouts
from gyoza.models.errors import RunNotFound
from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.models.run import ExecutionSummary, OpRun
from gyoza.store import events
from gyoza.store.database import Connection

_SELECT = """
    SELECT r.id, r.state, r.priority, r.image, r.op_definition, r.inputs, a.outputs, r.cpu_m, r.ram_mb, r.vram_mb,
        r.max_attempts, r.event_delivery, a.progress, r.current_attempt, a.summary, r.created_at, r.updated_at,
        a.reason, r.version, r.revision, r.submitted_by, r.tags, r.run_at, r.timeouts, r.user_failures,
        r.infra_losses, r.next_event, r.queue_at
    FROM runs r JOIN attempts a ON a.run_id = r.id AND a.attempt = r.current_attempt
"""


@dataclass(frozen=True)
class Filters:
    """What a list is narrowed to; None does not narrow."""

    state: OpRunState | None = None
    op_definition: str | None = None
    image: str | None = None
    created_gte: datetime | None = None
    created_lte: datetime | None = None
    created_gt: datetime | None = None
    created_lt: datetime | None = None


_CONDITIONS: dict[str, LiteralString] = {
    "state": "r.state = %(state)s",
    "op_definition": "r.op_definition = %(op_definition)s",
    "image": "r.image = %(image)s",
    "created_gte": "r.created_at >= %(created_gte)s",
    "created_lte": "r.created_at <= %(created_lte)s",
    "created_gt": "r.created_at > %(created_gt)s",
    "created_lt": "r.created_at < %(created_lt)s",
}


async def get(connection: Connection, run_id: str) -> OpRun:
    """One run with its current attempt's newest events; raises RunNotFound."""
    cursor = await connection.execute(_SELECT + "WHERE r.id = %s", [run_id])
    row = await cursor.fetchone()
    if row is None:
        raise RunNotFound(run_id)
    run = _run(row)
    return replace(run, events=await events.newest(connection, run_id, run.current_attempt))


async def created_at(connection: Connection, run_id: str) -> datetime | None:
    cursor = await connection.execute("SELECT created_at FROM runs WHERE id = %s", [run_id])
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def newest_first(
    connection: Connection,
    filters: Filters,
    limit: int,
    *,
    after: tuple[datetime, str] | None = None,
    before: tuple[datetime, str] | None = None,
) -> list[OpRun]:
    """At most `limit` runs older than `after`, or the `limit` nearest ones newer than `before`; always newest first."""
    values = {name: value for name, value in vars(filters).items() if value is not None}
    conditions: list[LiteralString] = [_CONDITIONS[name] for name in values]
    order: LiteralString = "DESC"
    if after is not None:
        conditions.append("(r.created_at, r.id) < (%(cursor_at)s, %(cursor_id)s)")
    if before is not None:
        conditions.append("(r.created_at, r.id) > (%(cursor_at)s, %(cursor_id)s)")
        order = "ASC"
    cursor_at, cursor_id = after or before or (None, None)
    conditions.append("true")
    query = (
        _SELECT + "WHERE " + " AND ".join(conditions) + f" ORDER BY r.created_at {order}, r.id {order} LIMIT %(limit)s"
    )
    cursor = await connection.execute(query, {**values, "cursor_at": cursor_at, "cursor_id": cursor_id, "limit": limit})
    runs = [_run(row) for row in await cursor.fetchall()]
    return runs[::-1] if before is not None else runs


def _run(row: Sequence[Any]) -> OpRun:
    (run_id, state, priority, image, op_definition, inputs, outputs, cpu_m, ram_mb, vram_mb) = row[:10]
    (max_attempts, delivery, progress, attempt, summary, created_at, updated_at, reason) = row[10:18]
    (version, revision, submitted_by, tags, run_at, timeouts, user_failures, infra_losses) = row[18:26]
    next_event, queue_at = row[26:]
    return OpRun(
        id=run_id,
        state=OpRunState(state),
        priority=priority,
        image=image,
        op_definition=op_definition,
        inputs=inputs,
        outputs=outputs,
        constraints=Constraints(cpu_m, ram_mb, vram_mb),
        retry_policy=RetryPolicy(max_attempts),
        event_delivery=_delivery(delivery),
        progress=progress,
        current_attempt=attempt,
        events=(),
        execution_summary=ExecutionSummary.from_dict(msgspec.json.decode(summary)),
        created_at=created_at,
        updated_at=updated_at,
        reason=reason,
        version=version,
        revision=revision,
        submitted_by=submitted_by,
        tags=tags,
        run_at=run_at,
        timeouts=Timeouts.from_dict(msgspec.json.decode(timeouts) if timeouts is not None else None),
        user_failures=user_failures,
        infra_losses=infra_losses,
        events_count=next_event,
        queue_at=queue_at,
    )


def _delivery(raw: msgspec.Raw | None) -> EventDelivery | None:
    """The attributes stay the JSON that was received."""
    if raw is None:
        return None
    parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return EventDelivery(msgspec.json.decode(parts["topic"]), parts["attributes"])
