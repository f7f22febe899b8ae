"""Small builders and the contract's tables, copied by hand so that the code is never compared with itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

from gyoza.models.definition import RetryPolicy, Timeouts
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.reasons import Reason
from gyoza.models.resources import Constraints, Free
from gyoza.policy.deadline import deadline
from gyoza.policy.life import Assignment, Happening, Life, Try, assign, happen, queue_at, reported, take_back
from gyoza.policy.placement import Waiting, WorkerRoom

S, E = OpRunState, EventType

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# (from, event) -> (to, whether only the server may): the contract, section 2.
CONTRACT = {
    ("PENDING", "ASSIGNED"): ("ASSIGNED", True),
    ("ASSIGNED", "STARTED"): ("RUNNING", False),
    ("PENDING", "STARTED"): ("RUNNING", False),
    ("RUNNING", "PROGRESS"): ("RUNNING", False),
    ("RUNNING", "COMPLETED"): ("COMPLETED", False),
    ("ASSIGNED", "FAILED"): ("FAILED", False),
    ("RUNNING", "FAILED"): ("FAILED", False),
    ("PENDING", "FAILED"): ("FAILED", True),
    ("PENDING", "CANCELLED"): ("CANCELLED", False),
    ("ASSIGNED", "CANCELLED"): ("CANCELLED", False),
    ("RUNNING", "CANCELLED"): ("CANCELLED", False),
    ("FAILED", "RETRIED"): ("PENDING", False),
    ("CANCELLED", "RETRIED"): ("PENDING", False),
    ("PENDING", "INFO"): ("PENDING", False),
    ("ASSIGNED", "INFO"): ("ASSIGNED", False),
    ("RUNNING", "INFO"): ("RUNNING", False),
    ("PENDING", "ERROR"): ("PENDING", False),
    ("ASSIGNED", "ERROR"): ("ASSIGNED", False),
    ("RUNNING", "ERROR"): ("RUNNING", False),
}

# reason -> (the budget it spends, whether it is retried by default): the contract, section 2.
REASONS = {
    "op_error": ("user", True),
    "oom_killed": ("user", True),
    "gpu_memory_exceeded": ("user", True),
    "run_timeout": ("user", True),
    "invalid_output": ("user", False),
    "image_not_found": ("user", False),
    "bundle_broken": ("user", False),
    "not_allowed": ("user", False),
    "image_pull_failed": ("infra", True),
    "start_failed": ("infra", True),
    "start_timeout": ("infra", True),
    "disk_full": ("infra", True),
    "worker_lost": ("infra", True),
    "released": ("none", True),
    "declined": ("none", True),
    "drained": ("none", True),
    "preempted": ("none", True),
    "queue_timeout": ("none", False),
    "expired": ("none", False),
    "cancelled": ("none", False),
    "external": ("user", True),
}

# Those that nobody but the server gives.
SERVER_REASONS = {"worker_lost", "released", "queue_timeout", "expired", "cancelled"}
OUTSIDE_REASONS = sorted(set(REASONS) - SERVER_REASONS)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def submitted(*, max_attempts: int = 1, priority: int = 5, timeouts: Timeouts | None = None, **policy: Any) -> Life:
    limits, retry_policy = timeouts or Timeouts(), RetryPolicy(max_attempts, **policy)
    first = Try(1, deadline=deadline(S.PENDING, limits, NOW))
    return Life("run-1", 1, {1: first}, priority, queue_at(NOW, priority), retry_policy, limits)


def assigned(worker: str = "w1", lease: str = "lease-1", **how: Any) -> Life:
    return assign(submitted(**how), Assignment(worker, lease), NOW)


def running(**how: Any) -> Life:
    return reported(assigned(**how), 1, event(E.STARTED), NOW)


def unleased(**how: Any) -> Life:
    """A run that a program executes by itself, without the scheduler."""
    return happen(submitted(**how), event(E.STARTED), NOW)


def moved_on() -> Life:
    """A run that is lost with its first worker and handed to another worker."""
    life = take_back(running(), 1, Reason.WORKER_LOST, "Worker 'w1' was lost", at(1))
    return assign(life, Assignment("w2", "lease-2"), at(2))


def through(life: Life, reason: str) -> Life:
    """One more attempt that is assigned, starts, and fails for `reason`."""
    life = assign(life, Assignment("w", f"lease-{life.current}"), NOW)
    life = reported(life, life.current, event(E.STARTED), NOW)
    return reported(life, life.current, failed(reason), NOW)


def event(type: EventType, msg: Any = "", **payload: Any) -> Happening:
    return Happening(type, msg, payload or None)


def failed(reason: str | None = None, **payload: Any) -> Happening:
    return event(E.FAILED, **({"reason": reason} if reason else {}), **payload)


def story(life: Life) -> list[str]:
    """The events that a life has written, with the attempt that each belongs to."""
    return [f"{entry.type} {entry.attempt}" for entry in life.events]


def waiting(run_id: str, *, entered: datetime = NOW, cpu_m: int = 1000, ram_mb: int = 256, vram_mb: int = 0) -> Waiting:
    return Waiting(run_id, 1, entered, Constraints(cpu_m, ram_mb, vram_mb), frozenset({"docker"}))


def room(worker_id: str, *, cpu_m: int = 4000, ram_mb: int = 8192, slots: int = 8, **gpus: int) -> WorkerRoom:
    """`gpus` as gpu0=8000, gpu1=16000: free VRAM by id."""
    vram_mb = {int(name.removeprefix("gpu")): free for name, free in gpus.items()}
    return WorkerRoom(worker_id, Free(cpu_m, ram_mb, slots, vram_mb), frozenset({"docker"}))
