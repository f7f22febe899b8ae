"""Runs, and the one place where a run changes: lock it, let policy fold its `Life`, write the outcome once.

A batch is one JSON parameter that PostgreSQL reads as rows, so that the price of many is the price of one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from gyoza.models.definition import EventDelivery, Timeouts
from gyoza.models.resources import Constraints
from gyoza.models.run import time_to_wire
from gyoza.policy.life import Life, Try
from gyoza.policy.retry import Budgets
from gyoza.store import attempts, events
from gyoza.store.database import Connection


@dataclass(frozen=True)
class NewRun:
    """A run to be. `inputs` is JSON as it was received; `engines` are the kinds of worker that can run it."""

    id: str
    created_at: datetime
    queue_at: datetime
    priority: int
    inputs: Any
    constraints: Constraints
    max_attempts: int
    engines: Sequence[str]
    image: str | None = None
    op_definition: str | None = None
    revision: int | None = None
    version: str | None = None
    event_delivery: EventDelivery | None = None
    timeouts: Timeouts | None = None
    tags: Sequence[str] = ()
    submitted_by: str | None = None

    def to_row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "priority": self.priority,
            "image": self.image,
            "op_definition": self.op_definition,
            "revision": self.revision,
            "version": self.version,
            "inputs": self.inputs,
            "cpu_m": self.constraints.cpu_m,
            "ram_mb": self.constraints.ram_mb,
            "vram_mb": self.constraints.vram_mb,
            "max_attempts": self.max_attempts,
            "event_delivery": self.event_delivery.to_dict() if self.event_delivery else None,
            "timeouts": self.timeouts.to_dict() if self.timeouts else None,
            "tags": list(self.tags),
            "submitted_by": self.submitted_by,
            "engines": sorted(self.engines),
            "queue_at": time_to_wire(self.queue_at),
            "created_at": time_to_wire(self.created_at),
        }


async def insert(connection: Connection, runs: Iterable[NewRun]) -> None:
    """Each run with its first attempt."""
    await connection.execute(
        """
        WITH made AS (
            INSERT INTO runs (
                id, state, priority, image, op_definition, revision, version, inputs, cpu_m, ram_mb, vram_mb,
                max_attempts, event_delivery, timeouts, tags, submitted_by, engines, queue_at, created_at, updated_at)
            SELECT
                id, 'PENDING', priority, image, op_definition, revision, version, inputs, cpu_m, ram_mb, vram_mb,
                max_attempts, event_delivery, timeouts, tags, submitted_by, engines, queue_at, created_at, created_at
            FROM json_to_recordset(%s::json) AS r (
                id uuid, priority integer, image text, op_definition text, revision integer, version text, inputs json,
                cpu_m integer, ram_mb integer, vram_mb integer, max_attempts integer, event_delivery json,
                timeouts json, tags text[], submitted_by text, engines text[], queue_at timestamptz,
                created_at timestamptz)
            RETURNING id, cpu_m, ram_mb, vram_mb
        )
        INSERT INTO attempts (run_id, attempt, state, cpu_m, ram_mb, vram_mb)
        SELECT id, 1, 'PENDING', cpu_m, ram_mb, vram_mb FROM made
        """,
        [_rows(run.to_row() for run in runs)],
    )


async def lock(connection: Connection, run_ids: Iterable[str], named: Iterable[int] = ()) -> dict[str, Life]:
    """The lives of these runs, locked in the order of their ids until the transaction ends; unknown ids are absent.

    `named` are the numbers of attempts that they must carry, even if these are settled. The attempts are read after the
    lock is held: read with it, they would be those of before the wait.
    """
    wanted = sorted(set(run_ids))
    if not wanted:
        return {}
    cursor = await connection.execute(
        """
        SELECT id, current_attempt, priority, queue_at, max_attempts, user_failures, infra_losses, next_event,
            updated_at
        FROM runs WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE
        """,
        [wanted],
    )
    rows = await cursor.fetchall()
    tries = await attempts.tries(connection, wanted, sorted(named))
    return {row[0]: _life(row, tries[row[0]]) for row in rows}


async def write(connection: Connection, lives: Iterable[Life], now: datetime) -> None:
    """What became of locked lives. Those that did not change are passed over."""
    changed = [life for life in lives if life.events or life.touched]
    if not changed:
        return
    cursor = await connection.execute(
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
        [now, _rows(_run_row(life) for life in changed)],
    )
    if cursor.rowcount != len(changed):
        raise AssertionError("a run changed although it was locked")
    await attempts.write(connection, ((life.run_id, life.tries[n]) for life in changed for n in sorted(life.touched)))
    await events.insert(connection, ((life.run_id, event) for life in changed for event in life.events))


async def reprioritise(connection: Connection, run_id: str, priority: int, queue_at: datetime, now: datetime) -> None:
    await connection.execute(
        "UPDATE runs SET priority = %s, queue_at = %s, updated_at = %s WHERE id = %s",
        [priority, queue_at, now, run_id],
    )


def _life(row: Sequence[Any], tries: Mapping[int, Try]) -> Life:
    run_id, current, priority, queue_at, max_attempts, user_failures, infra_losses, next_event, changed_at = row
    return Life(
        run_id=run_id,
        current=current,
        tries=tries,
        priority=priority,
        queue_at=queue_at,
        max_attempts=max_attempts,
        budgets=Budgets(user_failures, infra_losses),
        next_event=next_event,
        changed_at=changed_at,
    )


def _run_row(life: Life) -> dict[str, Any]:
    return {
        "id": life.run_id,
        "state": life.state,
        "current_attempt": life.current,
        "queue_at": time_to_wire(life.queue_at),
        "user_failures": life.budgets.user_failures,
        "infra_losses": life.budgets.infra_losses,
        "next_event": life.next_event,
        "was": life.next_event - len(life.events),
    }


def _rows(rows: Iterable[Mapping[str, Any]]) -> str:
    return msgspec.json.encode(list(rows)).decode()
