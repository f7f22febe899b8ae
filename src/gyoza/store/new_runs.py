"""Runs as they are asked for: made, and read again to be asked for once more."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gyoza.models.definition import EventDelivery, RetryPolicy, Timeouts
from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.models.run import time_to_wire
from gyoza.policy.deadline import deadline
from gyoza.policy.life import queue_at
from gyoza.store.columns import event_delivery, retry_policy, rows, timeouts
from gyoza.store.database import Connection


@dataclass(frozen=True)
class NewRun:
    """A run to be. `inputs` is JSON as it was received; `engines` are the kinds of worker that can run it."""

    id: str
    created_at: datetime
    priority: int
    inputs: Any
    constraints: Constraints
    engines: Sequence[str]
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    image: str | None = None
    op_definition: str | None = None
    revision: int | None = None
    version: str | None = None
    event_delivery: EventDelivery | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    tags: Sequence[str] = ()
    submitted_by: str | None = None
    run_at: datetime | None = None
    delete_after_s: float | None = None
    replay_of: str | None = None

    @property
    def enters_at(self) -> datetime:
        """When it enters the queue."""
        return max(self.created_at, self.run_at or self.created_at)

    @property
    def queue_at(self) -> datetime:
        return queue_at(self.enters_at, self.priority)

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
            "max_attempts": self.retry_policy.max_attempts,
            "retry": _retry(self.retry_policy),
            "event_delivery": self.event_delivery.to_dict() if self.event_delivery else None,
            "timeouts": None if self.timeouts == Timeouts() else self.timeouts.to_dict(),
            "tags": list(self.tags),
            "submitted_by": self.submitted_by,
            "engines": sorted(self.engines),
            "queue_at": time_to_wire(self.queue_at),
            "created_at": time_to_wire(self.created_at),
            "run_at": time_to_wire(self.run_at),
            "due": self.enters_at == self.created_at,
            "deadline": time_to_wire(deadline(OpRunState.PENDING, self.timeouts, self.enters_at)),
            "delete_after_s": self.delete_after_s,
            "replay_of": self.replay_of,
        }


async def insert(connection: Connection, runs: Iterable[NewRun]) -> None:
    """Each run with its first attempt and its tags."""
    await connection.execute(
        """
        WITH asked AS (
            SELECT
                id, priority, image, op_definition, revision, version, inputs, cpu_m, ram_mb, vram_mb, max_attempts,
                retry, event_delivery, timeouts, tags, submitted_by, engines, queue_at, created_at, run_at, due,
                deadline, delete_after_s, replay_of
            FROM json_to_recordset(%s::json) AS r (
                id uuid, priority integer, image text, op_definition text, revision integer, version text, inputs json,
                cpu_m integer, ram_mb integer, vram_mb integer, max_attempts integer, retry json, event_delivery json,
                timeouts json, tags text[], submitted_by text, engines text[], queue_at timestamptz,
                created_at timestamptz, run_at timestamptz, due boolean, deadline timestamptz,
                delete_after_s double precision, replay_of uuid)
        ), made AS (
            INSERT INTO runs (
                id, state, priority, image, op_definition, revision, version, inputs, cpu_m, ram_mb, vram_mb,
                max_attempts, retry, event_delivery, timeouts, tags, submitted_by, engines, queue_at, created_at,
                updated_at, run_at, due, delete_after_s, replay_of)
            SELECT
                id, 'PENDING', priority, image, op_definition, revision, version, inputs, cpu_m, ram_mb, vram_mb,
                max_attempts, retry, event_delivery, timeouts, tags, submitted_by, engines, queue_at, created_at,
                created_at, run_at, due, delete_after_s, replay_of
            FROM asked
        ), tagged AS (
            INSERT INTO run_tags (tag, created_at, run_id) SELECT DISTINCT unnest(tags), created_at, id FROM asked
        )
        INSERT INTO attempts (run_id, attempt, state, deadline, cpu_m, ram_mb, vram_mb)
        SELECT id, 1, 'PENDING', deadline, cpu_m, ram_mb, vram_mb FROM asked
        """,
        [rows(run.to_row() for run in runs)],
    )


async def read(connection: Connection, run_id: str) -> NewRun | None:
    """A run as it was asked for, but for when: `run_at` has become the current attempt's."""
    cursor = await connection.execute(
        """
        SELECT id, created_at, priority, inputs, cpu_m, ram_mb, vram_mb, engines, max_attempts, retry, image,
            op_definition, revision, version, event_delivery, timeouts, tags, submitted_by, delete_after_s
        FROM runs WHERE id = %s
        """,
        [run_id],
    )
    row = await cursor.fetchone()
    return None if row is None else _asked(row)


def _asked(row: Sequence[Any]) -> NewRun:
    run_id, created_at, priority, inputs, cpu_m, ram_mb, vram_mb, engines, max_attempts, retry, image = row[:11]
    op_definition, revision, version, delivery, limits, tags, submitted_by, delete_after_s = row[11:]
    return NewRun(
        id=run_id,
        created_at=created_at,
        priority=priority,
        inputs=inputs,
        constraints=Constraints(cpu_m, ram_mb, vram_mb),
        engines=engines,
        retry_policy=retry_policy(max_attempts, retry),
        image=image,
        op_definition=op_definition,
        revision=revision,
        version=version,
        event_delivery=event_delivery(delivery),
        timeouts=timeouts(limits),
        tags=tags,
        submitted_by=submitted_by,
        delete_after_s=delete_after_s,
    )


def _retry(policy: RetryPolicy) -> dict[str, Any] | None:
    return None if policy == RetryPolicy(policy.max_attempts) else policy.to_dict()
