"""What must have come of a cluster, kept in dictionaries: the contract once more, in the plainest words."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gyoza.store.attempts import Assigned

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}
ALLOWED = {
    "STARTED": {"PENDING": "RUNNING", "ASSIGNED": "RUNNING"},
    "PROGRESS": {"RUNNING": "RUNNING"},
    "COMPLETED": {"RUNNING": "COMPLETED"},
    "FAILED": {"ASSIGNED": "FAILED", "RUNNING": "FAILED"},
}
BUDGETS = {"op_error": "user", "external": "user", "disk_full": "infra", "worker_lost": "infra"}
LEASE_S, START_S = 20, 60


@dataclass
class Run:
    """`patience_s`: for how long a silent worker is waited for, where that is longer than its lease."""

    attempts: int
    cpu_m: int
    patience_s: float = 0
    state: str = "PENDING"
    attempt: int = 1
    spent: dict[str, int] = field(default_factory=lambda: {"user": 0, "infra": 0, "none": 0})
    story: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    def write(self, event: str, state: str) -> None:
        self.attempt += event == "RETRIED"
        self.story.append(f"{event} {self.attempt}")
        self.state = state

    def fail(self, reason: str) -> None:
        budget = BUDGETS.get(reason, "none")
        self.spent[budget] += 1
        self.write("FAILED", "FAILED")
        if self.spent[budget] < {"user": self.attempts, "infra": 5, "none": 10**9}[budget]:
            self.write("RETRIED", "PENDING")


@dataclass
class Hold:
    """An attempt that was handed to a worker; `seq` is the last report that was applied."""

    run: Run
    run_id: str
    attempt: int
    worker: str
    assigned_at: datetime
    told: Assigned | None = None
    acknowledged_at: datetime | None = None
    seq: int = 0
    settled: bool = False

    @property
    def name(self) -> tuple[str, int]:
        return self.run_id, self.attempt

    @property
    def is_live(self) -> bool:
        return self.run.attempt == self.attempt and not self.run.is_over

    @property
    def is_to_start(self) -> bool:
        return self.is_live and self.run.state == "ASSIGNED"


@dataclass
class Worker:
    """`has` is what it knows of, by its own word."""

    cpu_m: int
    seen_at: datetime | None = None
    evicted: bool = False
    awaited_until: datetime | None = None
    instance: int = 0
    has: set[tuple[str, int]] = field(default_factory=set)

    @property
    def lives(self) -> bool:
        return self.seen_at is not None and not self.evicted


@dataclass
class Truth:
    workers: dict[str, Worker]
    runs: dict[str, Run] = field(default_factory=dict)
    holds: dict[tuple[str, int], Hold] = field(default_factory=dict)

    def held(self, worker: str) -> list[Hold]:
        return [hold for hold in self.holds.values() if hold.worker == worker and not hold.settled]

    def to_stop(self, worker: str) -> set[tuple[str, int]]:
        return {hold.name for hold in self.held(worker) if not hold.is_live and hold.name in self.workers[worker].has}

    def to_claim(self, worker: str) -> set[tuple[str, int]]:
        return {hold.name for hold in self.held(worker) if hold.is_to_start} - self.workers[worker].has

    def free_cpu_m(self, worker: str) -> int:
        return self.workers[worker].cpu_m - sum(hold.run.cpu_m for hold in self.held(worker))

    def may_be_placed(self) -> Iterator[str]:
        """Runs that wait, and of which nothing runs any more on a living worker."""
        busy = {hold.run_id for name, worker in self.workers.items() if worker.lives for hold in self.held(name)}
        return (run_id for run_id, run in self.runs.items() if run.state == "PENDING" and run_id not in busy)

    def place(self, run_id: str, worker: str, now: datetime) -> None:
        run = self.runs[run_id]
        assert run_id in self.may_be_placed()
        assert self.workers[worker].lives
        assert self.free_cpu_m(worker) >= run.cpu_m
        run.write("ASSIGNED", "ASSIGNED")
        hold = Hold(run, run_id, run.attempt, worker, now)
        self.holds[hold.name] = hold

    def beat(self, name: str, now: datetime, *, instance: int) -> None:
        worker = self.workers[name]
        before = worker.seen_at if worker.lives and worker.instance == instance else None
        worker.instance = instance
        for hold in self.held(name):
            if hold.name in worker.has:
                hold.acknowledged_at = hold.acknowledged_at or now
            elif self._is_gone(hold, before):
                self._lose(hold, "worker_lost")
                hold.settled = True
            if worker.evicted and hold.is_live and hold.name in worker.has:
                hold.run.write("INFO", hold.run.state)
        worker.seen_at, worker.evicted, worker.awaited_until = now, False, None

    def reap(self, now: datetime) -> dict[str, int]:
        silent = [name for name, worker in self.workers.items() if self._is_due(worker, now)]
        for name in silent:
            self._evict(name, now)
        late = [hold for hold in self.holds.values() if hold.is_to_start and not hold.acknowledged_at]
        late = [hold for hold in late if now - hold.assigned_at > seconds(START_S)]
        for hold in late:
            self._lose(hold, "released")
        return {"evicted": len(silent), "expired": len(late)}

    def _is_due(self, worker: Worker, now: datetime) -> bool:
        if worker.evicted:
            return worker.awaited_until is not None and worker.awaited_until <= now
        return worker.seen_at is not None and now - worker.seen_at > seconds(LEASE_S)

    def _evict(self, name: str, now: datetime) -> None:
        worker, awaited = self.workers[name], list[datetime]()
        assert worker.seen_at
        for hold in self.held(name):
            until = worker.seen_at + seconds(hold.run.patience_s)
            if not (hold.is_live and hold.acknowledged_at and until > now):
                self._lose(hold, "worker_lost")
                continue
            awaited.append(until)
            if not worker.evicted:
                hold.run.write("INFO", hold.run.state)
        worker.evicted, worker.awaited_until = True, min(awaited, default=None)

    def report(self, hold: Hold, seq: int, event: str | None, now: datetime, *, settled: bool) -> str | None:
        """The code of the refusal, if it must be refused."""
        if seq <= hold.seq:
            return None
        if not hold.is_live and (event or not settled):
            return "lease_lost"
        kind, _, reason = (event or "").partition(" ")
        if kind and hold.run.state not in ALLOWED[kind]:
            return "transition_refused"
        hold.seq, hold.acknowledged_at = seq, hold.acknowledged_at or now
        self.say(hold.run, kind, reason)
        hold.settled = hold.settled or (settled and not hold.is_live)
        return None

    def decline(self, hold: Hold, now: datetime) -> None:
        hold.seq, hold.acknowledged_at = hold.seq + 1, hold.acknowledged_at or now
        self._lose(hold, "declined")
        hold.settled = True

    def say(self, run: Run, kind: str, reason: str) -> None:
        if kind == "FAILED":
            run.fail(reason)
        elif kind:
            run.write(kind, ALLOWED[kind][run.state])

    def _lose(self, hold: Hold, reason: str) -> None:
        if hold.is_live:
            hold.run.fail(reason)

    def _is_gone(self, hold: Hold, before: datetime | None) -> bool:
        if hold.acknowledged_at is None:
            return not hold.is_live
        return before is None or hold.acknowledged_at <= before


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
