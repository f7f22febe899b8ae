"""Reading runs: one, or a page of them, newest first by (created_at, id)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, LiteralString

import msgspec

from gyoza.models.errors import RunNotFound
from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.models.run import ExecutionSummary, OpRun
from gyoza.store import events
from gyoza.store.columns import event_delivery, retry_policy, timeouts
from gyoza.store.database import Connection
from gyoza.store.filters import Filters, Place, narrowed

_SELECT = """
    SELECT r.id, r.state, r.priority, r.image, r.op_definition, r.inputs, a.outputs, r.cpu_m, r.ram_mb, r.vram_mb,
        r.max_attempts, r.event_delivery, a.progress, r.current_attempt, a.summary, r.created_at, r.updated_at,
        a.reason, r.version, r.revision, r.submitted_by, r.tags, r.run_at, r.timeouts, r.user_failures,
        r.infra_losses, r.next_event, r.queue_at, r.retry, r.delete_after_s, r.pinned, r.replay_of
"""
_WITH_ATTEMPT: LiteralString = "JOIN attempts a ON a.run_id = r.id AND a.attempt = r.current_attempt "


async def get(connection: Connection, run_id: str) -> OpRun:
    """One run with its current attempt's newest events; raises RunNotFound."""
    cursor = await connection.execute(_SELECT + "FROM runs r " + _WITH_ATTEMPT + "WHERE r.id = %s", [run_id])
    row = await cursor.fetchone()
    if row is None:
        raise RunNotFound(run_id)
    run = _run(row)
    return replace(run, events=await events.newest(connection, run_id, run.current_attempt))


async def place_of(connection: Connection, run_id: str) -> Place | None:
    cursor = await connection.execute("SELECT created_at, id FROM runs WHERE id = %s", [run_id])
    row = await cursor.fetchone()
    return None if row is None else Place(*row)


async def outline(connection: Connection, run_id: str) -> tuple[OpRunState, int]:
    """Its state, and how many events it has; raises RunNotFound."""
    cursor = await connection.execute("SELECT state, next_event FROM runs WHERE id = %s", [run_id])
    row = await cursor.fetchone()
    if row is None:
        raise RunNotFound(run_id)
    return OpRunState(row[0]), row[1]


async def newest_first(
    connection: Connection, filters: Filters, limit: int, *, after: Place | None = None, before: Place | None = None
) -> list[OpRun]:
    """At most `limit` runs older than `after`, or the `limit` nearest ones newer than `before`; always newest first."""
    found = narrowed(filters, after=after, before=before)
    query = _SELECT + found.source + _WITH_ATTEMPT + found.rest + "LIMIT %(limit)s"
    cursor = await connection.execute(query, {**found.values, "limit": limit})
    runs = [_run(row) for row in await cursor.fetchall()]
    return runs[::-1] if before is not None else runs


async def ids(connection: Connection, filters: Filters, limit: int) -> list[str]:
    """Of at most `limit` runs, newest first."""
    found = narrowed(filters)
    query = "SELECT r.id " + found.source + found.rest + "LIMIT %(limit)s"
    cursor = await connection.execute(query, {**found.values, "limit": limit})
    return [row[0] for row in await cursor.fetchall()]


async def count(connection: Connection, filters: Filters, most: int) -> int:
    """How many there are, counted up to `most`."""
    found = narrowed(filters)
    query = "SELECT count(*) FROM (SELECT " + found.source + found.rest + "LIMIT %(limit)s) AS found"
    cursor = await connection.execute(query, {**found.values, "limit": most})
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


def _run(row: Sequence[Any]) -> OpRun:
    (run_id, state, priority, image, op_definition, inputs, outputs, cpu_m, ram_mb, vram_mb) = row[:10]
    (max_attempts, delivery, progress, attempt, summary, created_at, updated_at, reason) = row[10:18]
    (version, revision, submitted_by, tags, run_at, limits, user_failures, infra_losses) = row[18:26]
    next_event, queue_at, retry, delete_after_s, pinned, replay_of = row[26:]
    return OpRun(
        id=run_id,
        state=OpRunState(state),
        priority=priority,
        image=image,
        op_definition=op_definition,
        inputs=inputs,
        outputs=outputs,
        constraints=Constraints(cpu_m, ram_mb, vram_mb),
        retry_policy=retry_policy(max_attempts, retry),
        event_delivery=event_delivery(delivery),
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
        timeouts=timeouts(limits),
        user_failures=user_failures,
        infra_losses=infra_losses,
        events_count=next_event,
        queue_at=queue_at,
        delete_after_s=delete_after_s,
        pinned=pinned,
        replay_of=replay_of,
    )
