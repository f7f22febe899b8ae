"""A run as clients see it: the aggregate that shows its current attempt's progress, events and outputs as its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from gyoza.models.definition import EventDelivery, RetryPolicy, Timeouts
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.reasons import Reason
from gyoza.models.resources import Constraints

DEFAULT_PRIORITY = 5
NEWEST_EVENTS = 100


def is_run_id(text: str) -> bool:
    """Run ids are matched exactly: the canonical text of a UUID, and nothing else that a UUID could be written as."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def time_to_wire(moment: datetime | None) -> str | None:
    """ISO-8601 UTC, always six decimals and +00:00."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")


def time_from_wire(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True)
class EventEntry:
    """One event of a run. `id` counts 0, 1, 2, ... over all attempts; `t` is the server's clock, `at` the worker's."""

    id: int
    type: EventType
    t: datetime
    msg: Any
    payload: Any = None
    attempt: int = 1
    at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type.value,
            "t": time_to_wire(self.t),
            "msg": self.msg,
            "payload": self.payload,
            "attempt": self.attempt,
            "at": time_to_wire(self.at),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EventEntry":
        return cls(
            id=data["id"],
            type=EventType(data["type"]),
            t=datetime.fromisoformat(data["t"]),
            msg=data["msg"],
            payload=data.get("payload"),
            attempt=data.get("attempt", 1),
            at=time_from_wire(data.get("at")),
        )


@dataclass(frozen=True)
class ExecutionSummary:
    """How an attempt was executed. `worker_id` and `gpu_id` are whatever STARTED said; the rest is measured."""

    duration_ms: int | None = None
    worker_id: str | None = None
    error_message: str | None = None
    gpu_id: Any = None
    gpu_ids: Sequence[int] | None = None
    exit_code: int | None = None
    signal: int | None = None
    peak_ram_mb: int | None = None
    peak_vram_mb: int | None = None
    cpu_s: float | None = None
    image_digest: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SUMMARY_FIELDS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "ExecutionSummary":
        return cls(**{name: value for name, value in (data or {}).items() if name in SUMMARY_FIELDS})


SUMMARY_FIELDS = tuple(item.name for item in fields(ExecutionSummary))


@dataclass(frozen=True)
class OpAttempt:
    """One try of a run. `settled_at`: since when nothing of it runs any more, as the engine confirmed."""

    id: str
    op_run_id: str
    attempt: int
    state: OpRunState
    progress: int = 0
    events: Sequence[EventEntry] = ()
    inputs: Any = field(default_factory=dict[str, Any])
    outputs: Any = None
    execution_summary: ExecutionSummary = field(default_factory=ExecutionSummary)
    constraints: Constraints = field(default_factory=Constraints)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: Reason | None = None
    settled_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "op_run_id": self.op_run_id,
            "attempt": self.attempt,
            "state": self.state.value,
            "progress": self.progress,
            "events": [event.to_dict() for event in self.events],
            "inputs": self.inputs,
            "outputs": self.outputs,
            "execution_summary": self.execution_summary.to_dict(),
            "constraints": self.constraints.to_dict(),
            "started_at": time_to_wire(self.started_at),
            "finished_at": time_to_wire(self.finished_at),
            "reason": self.reason,
            "settled_at": time_to_wire(self.settled_at),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "OpAttempt":
        return cls(
            id=data["id"],
            op_run_id=data["op_run_id"],
            attempt=data["attempt"],
            state=OpRunState(data["state"]),
            progress=data["progress"],
            events=tuple(EventEntry.from_dict(event) for event in data["events"]),
            inputs=data["inputs"],
            outputs=data["outputs"],
            execution_summary=ExecutionSummary.from_dict(data["execution_summary"]),
            constraints=Constraints.from_dict(data["constraints"]),
            started_at=time_from_wire(data["started_at"]),
            finished_at=time_from_wire(data["finished_at"]),
            reason=Reason(data["reason"]) if data.get("reason") else None,
            settled_at=time_from_wire(data.get("settled_at")),
        )


@dataclass(frozen=True)
class OpRun:
    """One execution asked for. `events` are the current attempt's newest 100; their ids count over the whole run.

    `run_at`: the current attempt is not placed before; `delete_after_s`: kept for so long after its end, unless
    `pinned`; `replay_of`: the run that was asked for again.
    """

    id: str
    state: OpRunState
    priority: int
    image: str | None
    op_definition: str | None
    inputs: Any
    outputs: Any
    constraints: Constraints
    retry_policy: RetryPolicy
    event_delivery: EventDelivery | None
    progress: int
    current_attempt: int
    events: Sequence[EventEntry]
    execution_summary: ExecutionSummary
    created_at: datetime
    updated_at: datetime
    reason: Reason | None = None
    version: str | None = None
    revision: int | None = None
    submitted_by: str | None = None
    tags: Sequence[str] = ()
    run_at: datetime | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    user_failures: int = 0
    infra_losses: int = 0
    events_count: int = 0
    queue_at: datetime | None = None
    delete_after_s: float | None = None
    pinned: bool = False
    replay_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state.value,
            "priority": self.priority,
            "image": self.image,
            "op_definition": self.op_definition,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "constraints": self.constraints.to_dict(),
            "retry_policy": self.retry_policy.to_dict(),
            "event_delivery": self.event_delivery.to_dict() if self.event_delivery else None,
            "progress": self.progress,
            "current_attempt": self.current_attempt,
            "events": [event.to_dict() for event in self.events],
            "execution_summary": self.execution_summary.to_dict(),
            "created_at": time_to_wire(self.created_at),
            "updated_at": time_to_wire(self.updated_at),
            "reason": self.reason,
            "version": self.version,
            "revision": self.revision,
            "submitted_by": self.submitted_by,
            "tags": list(self.tags),
            "run_at": time_to_wire(self.run_at),
            "timeouts": self.timeouts.to_dict(),
            "user_failures": self.user_failures,
            "infra_losses": self.infra_losses,
            "events_count": self.events_count,
            "queue_at": time_to_wire(self.queue_at),
            "delete_after_s": self.delete_after_s,
            "pinned": self.pinned,
            "replay_of": self.replay_of,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "OpRun":
        delivery = data["event_delivery"]
        changed: dict[str, Any] = {
            "state": OpRunState(data["state"]),
            "constraints": Constraints.from_dict(data["constraints"]),
            "retry_policy": RetryPolicy.from_dict(data["retry_policy"]),
            "event_delivery": EventDelivery.from_dict(delivery) if delivery else None,
            "events": tuple(EventEntry.from_dict(event) for event in data["events"]),
            "execution_summary": ExecutionSummary.from_dict(data["execution_summary"]),
            "created_at": time_from_wire(data["created_at"]),
            "updated_at": time_from_wire(data["updated_at"]),
            "reason": Reason(data["reason"]) if data.get("reason") else None,
            "tags": tuple(data.get("tags") or ()),
            "run_at": time_from_wire(data.get("run_at")),
            "timeouts": Timeouts.from_dict(data.get("timeouts")),
            "queue_at": time_from_wire(data.get("queue_at")),
        }
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in {**data, **changed}.items() if name in known})
