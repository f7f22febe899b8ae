"""How a run changes: a `Life` goes in, what happens to it is judged against the table, the next `Life` comes out.

Nothing here reads or writes. The store locks a run, hands its `Life` over, and writes whatever comes back, so that
several changes to one run in one batch are simply folded, in the order of their arrival.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from gyoza.models.definition import RetryPolicy, Timeouts
from gyoza.models.errors import AttemptIsLeased, AttemptNotFound, Fault, LeaseLost, Malformed, StaleAttempt
from gyoza.models.lifecycle import HOLDER_ALONE, EventType, OpRunState, next_state
from gyoza.models.payloads import faults
from gyoza.models.reasons import Reason
from gyoza.models.run import EventEntry, ExecutionSummary
from gyoza.policy.deadline import deadline
from gyoza.policy.retry import Budgets, again

PRIORITY_POINT = timedelta(hours=1)
"""What one point of priority is worth in waiting."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def queue_at(entered: datetime, priority: int) -> datetime:
    """Where a run stands in the queue: the earlier the sooner, so that nothing starves."""
    return entered - priority * PRIORITY_POINT


@dataclass(frozen=True)
class Try:
    """What of an attempt decides, and what a change may leave on it.

    `deadline`: until when it may stay in its state; then the server ends it.
    """

    attempt: int
    state: OpRunState = OpRunState.PENDING
    progress: int = 0
    outputs: Any = None
    reason: Reason | None = None
    summary: ExecutionSummary = field(default_factory=ExecutionSummary)
    held_by: str | None = None
    lease: str | None = None
    gpu_ids: tuple[int, ...] = ()
    last_report: int = 0
    assigned_at: datetime | None = None
    acknowledged_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    settled_at: datetime | None = None
    deadline: datetime | None = None

    @property
    def is_leased(self) -> bool:
        return self.lease is not None and not self.state.is_terminal


@dataclass(frozen=True)
class Life:
    """A run while it is locked, with the attempts that matter.

    These are the current one, and of the earlier ones those that are not settled yet and those that somebody speaks of.
    `run_at`: the current attempt is not placed before; `due`: that time has come.
    """

    run_id: str
    current: int
    tries: Mapping[int, Try]
    priority: int
    queue_at: datetime
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    run_at: datetime | None = None
    due: bool = True
    budgets: Budgets = field(default_factory=Budgets)
    next_event: int = 0
    changed_at: datetime = _LONG_AGO
    events: tuple[EventEntry, ...] = ()
    touched: frozenset[int] = frozenset()

    @property
    def now_on(self) -> Try:
        """The current attempt."""
        return self.tries[self.current]

    @property
    def state(self) -> OpRunState:
        return self.now_on.state

    def with_try(self, changed: Try) -> "Life":
        return replace(self, tries={**self.tries, changed.attempt: changed}, touched=self.touched | {changed.attempt})

    def with_event(self, event: "Happening", now: datetime) -> "Life":
        entry = EventEntry(self.next_event, event.type, now, event.msg, event.kept, self.current, event.at)
        return replace(self, next_event=self.next_event + 1, events=(*self.events, entry))


@dataclass(frozen=True)
class Happening:
    """An event that somebody says happened.

    `payload` is decoded, to decide by; `received` and `outputs` are the payload and its outputs as they were received,
    to keep. `faults` were found on reading it.
    """

    type: EventType
    msg: Any = ""
    payload: Mapping[str, Any] | None = None
    at: datetime | None = None
    received: Any = None
    outputs: Any = None
    faults: tuple[Fault, ...] = ()

    @property
    def kept(self) -> Any:
        return self.payload if self.received is None else self.received

    def says(self, name: str, default: Any = None) -> Any:
        return (self.payload or {}).get(name, default)


@dataclass(frozen=True)
class Assignment:
    """Which worker an attempt is handed to, under which lease."""

    worker_id: str
    lease: str
    gpu_ids: tuple[int, ...] = ()


def outside(life: Life, event: Happening, now: datetime, *, attempt: int | None = None) -> Life:
    """What a client reports. Without a lease of its own it may act on the current attempt by the table alone."""
    if attempt is not None and attempt != life.current:
        raise StaleAttempt(life.run_id, attempt, life.current)
    if event.type in HOLDER_ALONE and life.now_on.is_leased:
        raise AttemptIsLeased(life.run_id, life.current, life.now_on.held_by or "")
    return and_again(happen(life, event, now), event, now)


def leased(life: Life, attempt: int, lease: str) -> Try:
    """The attempt that `lease` binds, current or not; raises AttemptNotFound or LeaseLost."""
    if not 1 <= attempt <= life.current:
        raise AttemptNotFound(life.run_id, attempt)
    held = life.tries.get(attempt)
    if held is None or held.lease != lease:
        raise LeaseLost(life.run_id, attempt)
    return held


def is_live(life: Life, attempt: int) -> bool:
    """Whether it is the current attempt, and not over."""
    return attempt == life.current and not life.state.is_terminal


def reported(life: Life, attempt: int, event: Happening, now: datetime) -> Life:
    """What the holder of a lease reports; refused once the attempt is over or no longer the current one."""
    if not is_live(life, attempt):
        raise LeaseLost(life.run_id, attempt)
    return and_again(happen(life, event, now), event, now)


def happen(life: Life, event: Happening, now: datetime, *, by_server: bool = False) -> Life:
    """One event, by the table. Raises what `next_state` raises, then Malformed for what the event says."""
    state = next_state(life.state, event.type, by_server=by_server)
    if not by_server and (wrong := [*event.faults, *faults(event.type, event.msg, event.payload)]):
        raise Malformed(wrong)
    if event.type is EventType.RETRIED:
        return _reopen(life, now).with_event(event, now)
    tried = replace(_EFFECTS.get(event.type, _noted)(life.now_on, event, now), state=state)
    return _spend(_limited(life.with_try(tried)), event, tried).with_event(event, now)


def and_again(life: Life, event: Happening, now: datetime) -> Life:
    """The automatic retry: FAILED is followed by RETRIED while the budget of its reason lasts."""
    ended = life.now_on
    if event.type is not EventType.FAILED or ended.reason is None:
        return life
    chance = crc32(f"{life.run_id} {life.current}".encode()) / 2**32
    pause = again(ended.reason, life.budgets, life.retry_policy, retryable=event.says("retryable"), chance=chance)
    if pause is None:
        return life
    retried = Happening(EventType.RETRIED, f"Retried after {ended.reason}", {"reason": ended.reason.value})
    return _postpone(happen(life, retried, now), pause, now)


def assign(life: Life, to: Assignment, now: datetime) -> Life:
    """The server hands the current attempt to a worker."""
    payload = {"worker_id": to.worker_id, "gpu_ids": list(to.gpu_ids)}
    life = happen(life, Happening(EventType.ASSIGNED, f"Assigned to {to.worker_id}", payload), now, by_server=True)
    held = replace(life.now_on, held_by=to.worker_id, lease=to.lease, gpu_ids=to.gpu_ids, assigned_at=now)
    return _limited(life.with_try(held))


def expire(life: Life, attempt: int, now: datetime) -> Life:
    """The server ends what stayed in its state beyond its deadline; a no-op when it has moved on.

    The deadline that is stored is only how it was found: a server of the version before moves runs and leaves it.
    """
    if not is_live(life, attempt):
        return life
    life = _limited(life)
    limit = life.now_on.deadline
    return life if limit is None or limit > now else take_back(life, attempt, *_OVERDUE[life.state], now)


def take_back(life: Life, attempt: int, reason: Reason, msg: str, now: datetime) -> Life:
    """The server ends the current attempt for a reason that is not the op's; a no-op when it is over already."""
    if not is_live(life, attempt):
        return life
    event = Happening(EventType.FAILED, msg, {"error_message": msg, "reason": reason.value})
    return and_again(happen(life, event, now, by_server=True), event, now)


def note(life: Life, attempt: int, msg: str, now: datetime) -> Life:
    """The server says how the current attempt stands; a no-op when it is over."""
    return happen(life, Happening(EventType.INFO, msg), now, by_server=True) if is_live(life, attempt) else life


def cancel(life: Life, msg: str, now: datetime) -> Life:
    return happen(life, Happening(EventType.CANCELLED, msg), now)


def settle(life: Life, attempt: int, now: datetime) -> Life:
    """Nothing of this attempt runs any more: its room is free."""
    held = life.tries.get(attempt)
    if held is None or held.settled_at is not None or not held.state.is_terminal:
        return life
    return life.with_try(replace(held, settled_at=now))


def acknowledge(life: Life, attempt: int, now: datetime) -> Life:
    """The worker has it: the time in which it had to say so counts no longer, but that in which to run does."""
    held = life.tries.get(attempt)
    if held is None or held.acknowledged_at is not None:
        return life
    return _limited(life.with_try(replace(held, acknowledged_at=now)))


def _reopen(life: Life, now: datetime) -> Life:
    opened = Try(life.current + 1)
    reopened = replace(life.with_try(opened), current=opened.attempt)
    return _postpone(reopened, timedelta(0), now)


def _postpone(life: Life, pause: timedelta, now: datetime) -> Life:
    """The current attempt enters the queue after `pause`: from then on it waits, and its time in the queue counts."""
    entered = now + pause
    place = queue_at(entered, life.priority)
    return _limited(replace(life, queue_at=place, run_at=entered if pause else None, due=not pause))


def _limited(life: Life) -> Life:
    """The current attempt has the deadline of the state that it is in. A confirmed assignment has none."""
    now_on = life.now_on
    since = {
        OpRunState.PENDING: life.queue_at + life.priority * PRIORITY_POINT,
        OpRunState.ASSIGNED: None if now_on.acknowledged_at else now_on.assigned_at,
        OpRunState.RUNNING: now_on.started_at,
    }.get(now_on.state)
    held = now_on.held_by is not None
    limit = None if since is None else deadline(now_on.state, life.timeouts, since, held=held)
    return life if limit == now_on.deadline else life.with_try(replace(now_on, deadline=limit))


def _spend(life: Life, event: Happening, tried: Try) -> Life:
    if event.type is not EventType.FAILED or tried.reason is None:
        return life
    return replace(life, budgets=life.budgets.spent_on(tried.reason))


def _noted(tried: Try, event: Happening, now: datetime) -> Try:
    return tried


def _started(tried: Try, event: Happening, now: datetime) -> Try:
    summary = replace(
        tried.summary,
        worker_id=event.says("worker_id") or tried.held_by,
        gpu_id=event.says("gpu_id", tried.summary.gpu_id),
    )
    return replace(tried, started_at=now, summary=summary)


def _progressed(tried: Try, event: Happening, now: datetime) -> Try:
    return replace(tried, progress=event.msg)


def _completed(tried: Try, event: Happening, now: datetime) -> Try:
    outputs = tried.outputs if event.says("outputs") is None else event.outputs or event.says("outputs")
    return replace(_finished(tried, None, now), progress=100, outputs=outputs)


def _failed(tried: Try, event: Happening, now: datetime) -> Try:
    said = {name: event.says(name) for name in ("error_message", "exit_code", "signal") if event.says(name) is not None}
    ended = _finished(tried, Reason(event.says("reason") or Reason.EXTERNAL), now)
    return replace(ended, summary=replace(ended.summary, **said))


def _cancelled(tried: Try, event: Happening, now: datetime) -> Try:
    return _finished(tried, Reason.CANCELLED, now)


def _finished(tried: Try, reason: Reason | None, now: datetime) -> Try:
    duration = None if tried.started_at is None else round((now - tried.started_at) / timedelta(milliseconds=1))
    return replace(
        tried,
        reason=reason,
        finished_at=now,
        settled_at=now if tried.held_by is None else None,
        summary=replace(tried.summary, duration_ms=duration),
    )


_OVERDUE: Mapping[OpRunState, tuple[Reason, str]] = {
    OpRunState.PENDING: (Reason.QUEUE_TIMEOUT, "It waited in the queue for longer than its queue_s"),
    OpRunState.ASSIGNED: (Reason.RELEASED, "The worker did not take it up in time"),
    OpRunState.RUNNING: (Reason.RUN_TIMEOUT, "It ran for longer than its run_s"),
}
_EFFECTS: Mapping[EventType, Callable[[Try, Happening, datetime], Try]] = {
    EventType.STARTED: _started,
    EventType.PROGRESS: _progressed,
    EventType.COMPLETED: _completed,
    EventType.FAILED: _failed,
    EventType.CANCELLED: _cancelled,
}
