"""One run in the ledger that is kept beside a server: the contract of its life once more, in the plainest words."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gyoza.models.lifecycle import SERVER_ALONE, TERMINAL, TRANSITIONS

Json = dict[str, Any]

LONG_AGO = datetime.min.replace(tzinfo=UTC)
NO_BOUND = 10**9
START_S = 60
PATIENCE_S = 60
"""How much longer than `run_s` the server waits where a worker keeps the time."""
REASONS = {
    "op_error": ("user", True),
    "invalid_output": ("user", False),
    "external": ("user", True),
    "disk_full": ("infra", True),
    "worker_lost": ("infra", True),
    "released": ("none", True),
    "declined": ("none", True),
    "drained": ("none", True),
    "run_timeout": ("user", True),
    "queue_timeout": ("none", False),
}
"""The budget that each spends, and whether it is retried."""
OVERDUE = {"PENDING": "queue_timeout", "ASSIGNED": "released", "RUNNING": "run_timeout"}

EVENTS: dict[str, Json] = {
    "ASSIGNED": {},
    "STARTED": {},
    "INFO": {"msg": "so far so good"},
    "ERROR": {"msg": "it hurts"},
    "PROGRESS": {"msg": 40},
    "PROGRESS of 101": {"msg": 101},
    "COMPLETED": {},
    "COMPLETED with outputs": {"payload": {"outputs": {"y": 1}}},
    "COMPLETED with nothing": {"payload": {"outputs": {}}},
    "COMPLETED with a list": {"payload": {"outputs": [1]}},
    "FAILED": {},
    "FAILED by the op": {"payload": {"reason": "op_error", "error_message": "no"}},
    "FAILED for good": {"payload": {"reason": "op_error", "retryable": False}},
    "FAILED to fit": {"payload": {"reason": "invalid_output"}},
    "FAILED for want of disk": {"payload": {"reason": "disk_full"}},
    "FAILED as only the server says": {"payload": {"reason": "worker_lost"}},
    "CANCELLED": {},
    "RETRIED": {"payload": {"force": True}},
}
"""What may be said of a run, by the words that tests use for it; the first word is the type."""
WRONG = {"PROGRESS of 101", "COMPLETED with a list", "FAILED as only the server says"}


class No(Exception):
    """A refusal, by its code."""

    def __init__(self, code: str):
        super().__init__(code)
        self.code = code


def body_of(event: str) -> Json:
    return {"type": kind_of(event), "msg": "", **EVENTS[event]}


def kind_of(event: str) -> str:
    return event.split()[0]


@dataclass
class Try:
    """An attempt. `lease` is what its worker was told, once it was; `seq` the last report that was taken.

    `deadline`: until when it may stay in its state.
    """

    number: int
    state: str = "PENDING"
    progress: int = 0
    outputs: Json | None = None
    reason: str | None = None
    worker: str | None = None
    lease: str | None = None
    assigned_at: datetime = LONG_AGO
    acknowledged_at: datetime | None = None
    deadline: datetime | None = None
    seq: int = 0
    settled: bool = False

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    def settle(self) -> None:
        self.settled = self.settled or self.is_over

    def acknowledge(self, now: datetime) -> None:
        self.acknowledged_at = self.acknowledged_at or now
        self.deadline = None if self.state == "ASSIGNED" else self.deadline

    def shown(self) -> Json:
        return {name: getattr(self, name) for name in ("state", "progress", "outputs", "reason")}


@dataclass
class Run:
    """`fixed` is what of it is shown and never changes; `limits` what was asked for, with what tests call it.

    `entered`: when it came into the queue last, or will; `run_at`: the same, where it has to wait for that.
    """

    id: str
    fixed: Json
    limits: Json
    priority: int
    entered: datetime
    run_at: datetime | None = None
    tries: list[Try] = field(default_factory=lambda: [Try(1)])
    spent: Counter[str] = field(default_factory=Counter)
    story: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._set_deadline(self.entered)

    @property
    def cpu(self) -> float:
        return 1 if self.limits["cpu"] is None else self.limits["cpu"]

    @property
    def current(self) -> Try:
        return self.tries[-1]

    @property
    def state(self) -> str:
        return self.current.state

    @property
    def place_in_queue(self) -> tuple[datetime, str]:
        return self.entered - timedelta(hours=self.priority), self.id

    def is_live(self, tried: Try) -> bool:
        return tried.number == self.current.number and not tried.is_over

    def shown(self) -> Json:
        return {
            **self.fixed,
            **self.current.shown(),
            "current_attempt": self.current.number,
            "priority": self.priority,
            "queue_at": self.place_in_queue[0].isoformat(timespec="microseconds"),
            "run_at": self.run_at and self.run_at.isoformat(timespec="microseconds"),
            "user_failures": self.spent["user"],
            "infra_losses": self.spent["infra"],
            "events_count": len(self.story),
        }

    def say(self, event: str, now: datetime) -> None:
        """What somebody who may says of the current attempt, and the automatic retry that follows from it."""
        payload = EVENTS[event].get("payload", {})
        self.write(kind_of(event), now, wrong=event in WRONG, msg=EVENTS[event].get("msg"), payload=payload)
        if self.state == "FAILED" and payload.get("retryable") is not False:
            self._again(now)

    def end(self, tried: Try, reason: str, now: datetime) -> None:
        """The server takes an attempt back, unless it is over."""
        if self.is_live(tried):
            self.write("FAILED", now, by_server=True, payload={"reason": reason})
            self._again(now)

    def expire(self, now: datetime) -> bool:
        """Whether it had stayed in its state for too long."""
        is_late = not self.current.is_over and self.current.deadline is not None and self.current.deadline <= now
        if is_late:
            self.end(self.current, OVERDUE[self.state], now)
        return is_late

    def assign(self, worker: str, now: datetime) -> None:
        self.write("ASSIGNED", now, by_server=True)
        self.current.worker, self.current.assigned_at = worker, now

    def write(
        self,
        kind: str,
        now: datetime,
        *,
        by_server: bool = False,
        wrong: bool = False,
        msg: Any = None,
        payload: Json | None = None,
    ) -> None:
        """One event, and what it does to the current attempt; the table says whether it may."""
        step: Any = (self.state, kind)
        if step not in TRANSITIONS or (step in SERVER_ALONE and not by_server):
            raise No("run_locked" if self.current.is_over else "transition_refused")
        if wrong:
            raise No("malformed")
        if kind == "RETRIED":
            self.tries.append(Try(len(self.tries) + 1))
            self.entered, self.run_at = now, None
        self.current.state = TRANSITIONS[step].value
        self._mark(kind, msg, payload or {})
        if kind not in ("INFO", "ERROR", "PROGRESS"):
            self._set_deadline(now)
        self.story.append((kind, self.current.number))

    def _mark(self, kind: str, msg: Any, payload: Json) -> None:
        tried = self.current
        if kind == "PROGRESS":
            tried.progress = msg
        if kind == "COMPLETED":
            tried.progress, tried.outputs = 100, payload.get("outputs", tried.outputs)
        if kind == "CANCELLED":
            tried.reason = "cancelled"
        if kind == "FAILED":
            tried.reason = payload.get("reason", "external")
            self.spent[REASONS[tried.reason][0]] += 1
        if tried.worker is None:
            tried.settle()

    def _again(self, now: datetime) -> None:
        budget, is_retried = REASONS[self.current.reason or ""]
        bound = {"user": self.limits["attempts"], "infra": 5, "none": NO_BOUND}[budget]
        if is_retried and self.spent[budget] < bound:
            self.write("RETRIED", now)
            pause_s = 0 if budget == "none" else self.limits["backoff_s"] * 2 ** (self.spent[budget] - 1)
            self.entered += timedelta(seconds=pause_s)
            self.run_at = self.entered if pause_s else None
            self._set_deadline(self.entered)

    def _set_deadline(self, since: datetime) -> None:
        run_s, patience_s = self.limits["run_s"], PATIENCE_S if self.current.worker else 0
        limit_s = {
            "PENDING": self.limits["queue_s"],
            "ASSIGNED": self.limits["start_s"] or START_S,
            "RUNNING": run_s and run_s + patience_s,
        }.get(self.state)
        self.current.deadline = limit_s and since + timedelta(seconds=limit_s)
