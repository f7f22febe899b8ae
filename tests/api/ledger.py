"""What a cluster must show, kept in dictionaries beside it.

Whoever asks the server asks the ledger too. It does what the server must do, or raises `No` with the code of the
refusal, and then nothing has changed.
"""

from collections.abc import Container, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gyoza.models.lifecycle import HOLDER_ALONE, TERMINAL, TRANSITIONS

from .entry import LONG_AGO, Json, No, Run, Try, kind_of

Name = tuple[str, int]
"""An attempt, by the id of its run and its number."""
LATE, LEASE = timedelta(seconds=10), timedelta(seconds=20)
POSSIBLE: Container[tuple[str, str]] = TRANSITIONS
STATUSES = {
    "run_not_found": 404,
    "definition_not_found": 404,
    "worker_not_found": 404,
    "invalid_inputs": 400,
    "not_allowed_now": 400,
    "run_locked": 400,
    "transition_refused": 400,
    "attempt_is_leased": 409,
    "stale_attempt": 409,
    "worker_name_taken": 409,
    "superseded": 409,
    "not_registered": 409,
    "malformed": 422,
}


@dataclass
class Worker:
    """`has` is what it knows of, by its own word; `instances` are all its processes, the last one is the living."""

    cpu: float
    slots: int
    host: str = "host-1"
    instances: list[str] = field(default_factory=list)
    seq: int = 0
    seen_at: datetime | None = None
    drain: bool = False
    evicted: bool = False
    forgotten: bool = False
    has: set[Name] = field(default_factory=set)

    @property
    def lives(self) -> bool:
        return self.seen_at is not None and not self.evicted

    @property
    def is_known(self) -> bool:
        return self.seen_at is not None and not self.forgotten

    def silence(self, now: datetime) -> timedelta:
        return now - (self.seen_at or LONG_AGO)

    def state(self, now: datetime) -> str:
        if self.evicted or self.silence(now) > LEASE:
            return "lost"
        return "late" if self.silence(now) > LATE else "alive"

    def hear(self, instance: str, seq: int, host: str, now: datetime) -> datetime | None:
        """When it was heard before this; None where it registers with this."""
        if instance in self.instances[:-1]:
            raise No("superseded")
        if self.instances[-1:] == [instance] and not self.forgotten and seq <= self.seq:
            return LONG_AGO
        if self.lives and self.instances[-1] == instance:
            before, self.seq, self.seen_at = self.seen_at, seq, now
            return before
        if instance not in self.instances:
            if self.state(now) != "lost" and self.host != host:
                raise No("worker_name_taken")
            self.instances.append(instance)
        self.drain = self.drain and not self.forgotten
        self.seq, self.seen_at, self.host = seq, now, host
        self.evicted = self.forgotten = False
        return None


@dataclass
class Ledger:
    workers: dict[str, Worker]
    runs: dict[str, Run] = field(default_factory=dict)

    def held(self, worker: str) -> list[tuple[Run, Try]]:
        """What a worker was handed and is not settled, in the order in which it was handed out."""
        found = [(run, tried) for run in self.runs.values() for tried in run.tries]
        held = [(run, tried) for run, tried in found if tried.worker == worker and not tried.settled]
        return sorted(held, key=lambda each: (each[1].assigned_at, each[0].id))

    def settled(self) -> set[Name]:
        return {(run.id, tried.number) for run in self.runs.values() for tried in run.tries if tried.settled}

    def to_stop(self, worker: str, having: set[Name]) -> set[tuple[str, int, str]]:
        over = [(run, tried) for run, tried in self.held(worker) if not run.is_live(tried)]
        named = [(run.id, tried.number, tried.reason or "released") for run, tried in over]
        return {each for each in named if each[:2] in having}

    def free(self, worker: str) -> tuple[float, int]:
        """CPU and slots that are left."""
        has, held = self.workers[worker], self.held(worker)
        return has.cpu - sum(run.cpu for run, _ in held), has.slots - len(held)

    def fits(self, run: Run, worker: str) -> bool:
        cpu, slots = self.free(worker)
        return self.workers[worker].lives and not self.workers[worker].drain and cpu >= run.cpu and slots >= 1

    def may_be_placed(self, now: datetime) -> Iterator[Run]:
        """Runs whose time has come, and of which nothing runs any more on a living worker."""
        busy = {run.id for name, worker in self.workers.items() if worker.lives for run, _ in self.held(name)}
        waiting = (run for run in self.runs.values() if run.state == "PENDING" and run.entered <= now)
        return (run for run in waiting if run.id not in busy)

    def tell(self, run_id: str, event: str, attempt: int | None, now: datetime) -> None:
        """An event from outside."""
        run = self._run(run_id)
        if attempt not in (None, run.current.number):
            raise No("stale_attempt")
        if run.current.worker and not run.current.is_over and kind_of(event) in HOLDER_ALONE:
            raise No("attempt_is_leased")
        run.say(event, now)

    def cancel(self, run_id: str, now: datetime) -> None:
        if self._run(run_id).current.is_over:
            raise No("not_allowed_now")
        self.runs[run_id].write("CANCELLED", now)

    def retry(self, run_id: str, now: datetime) -> None:
        self._run(run_id).write("RETRIED", now)

    def sweep(self, word: str, state: str, now: datetime) -> int:
        """Cancel or retry all that are in this state: how many that were."""
        kind = {"cancel": "CANCELLED", "retry": "RETRIED"}[word]
        found = [run for run in self.runs.values() if run.state == state and (state, kind) in POSSIBLE]
        for run in found:
            run.write(kind, now)
        return len(found)

    def update(self, run_id: str, wanted: Json, now: datetime) -> None:
        kinds = {"PENDING": "RETRIED", "RUNNING": "STARTED", **{state: state for state in TERMINAL}}
        run, state = self._run(run_id), wanted.get("state")
        if state is not None and state not in kinds:
            raise No("not_allowed_now")
        if state not in (None, run.state):
            run.write(kinds[state], now)
        run.current.outputs = wanted.get("outputs", run.current.outputs)
        run.priority = wanted.get("priority", run.priority)

    def place(self, placed: dict[str, str], now: datetime) -> None:
        """`placed`: run id -> worker. In the order of the queue, each where it fits, and none that fits is left."""
        waiting = sorted(self.may_be_placed(now), key=lambda run: run.place_in_queue)
        assert set(placed) <= {run.id for run in waiting}
        for run in waiting:
            if run.id in placed:
                assert self.fits(run, placed[run.id]), f"{run.id} has no room on {placed[run.id]}"
                run.assign(placed[run.id], now)
            else:
                assert not any(self.fits(run, worker) for worker in self.workers), f"{run.id} waits without need"

    def reap(self, now: datetime) -> Json:
        silent = [name for name, worker in self.workers.items() if worker.lives and worker.silence(now) > LEASE]
        for name in silent:
            self.workers[name].evicted = True
            for run, tried in self.held(name):
                run.end(tried, "worker_lost", now)
        expired = [run.expire(now) for run in self.runs.values()]
        return {"evicted": len(silent), "expired": sum(expired)}

    def drain(self, name: str, now: datetime) -> None:
        self._worker(name).drain = True
        for run, tried in self.held(name):
            if tried.state == "ASSIGNED":
                run.end(tried, "drained", now)

    def resume(self, name: str, now: datetime) -> None:
        self._worker(name).drain = False

    def remove(self, name: str, now: datetime) -> None:
        worker = self._worker(name)
        for run, tried in self.held(name):
            run.end(tried, "worker_lost" if tried.acknowledged_at else "released", now)
        worker.forgotten = worker.evicted = True

    def beat(self, name: str, instance: str, seq: int, host: str, holding: set[Name], now: datetime) -> Json:
        worker = self.workers[name]
        before = worker.hear(instance, seq, host, now)
        unknown = holding - {(run.id, tried.number) for run, tried in self.held(name)}
        stop = self.to_stop(name, holding) | {(run_id, number, "released") for run_id, number in unknown}
        for run, tried in self.held(name):
            if (run.id, tried.number) in holding:
                tried.acknowledge(now)
            elif _is_gone(run, tried, before):
                run.end(tried, "worker_lost", now)
                tried.settle()
        return {"drain": worker.drain, "stop": stop}

    def claim(self, name: str, instance: str, known: set[Name], most: int) -> Json:
        self.check_instance(name, instance)
        handed = [(run.id, tried.number) for run, tried in self.held(name) if tried.state == "ASSIGNED"]
        fresh = [each for each in handed if each not in known]
        return {"assignments": fresh[:most], "stop": self.to_stop(name, known), "drain": self.workers[name].drain}

    def check_instance(self, name: str, instance: str) -> None:
        worker = self.workers[name]
        if worker.is_known and instance in worker.instances[:-1]:
            raise No("superseded")
        if not worker.lives or worker.instances[-1] != instance:
            raise No("not_registered")

    def report(self, worker: str, report: Json, events: list[str], now: datetime) -> str | None:
        """The code of the refusal, if it must be refused; all of it counts, or nothing."""
        try:
            run = deepcopy(self._run(report["run_id"]))
            tried = _leased(run, report, worker)
            if report["seq"] > tried.seq:
                _take(run, tried, report, events, now)
                self.runs[run.id] = run
        except No as no:
            return no.code
        return None

    def _run(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise No("run_not_found")
        return self.runs[run_id]

    def _worker(self, name: str) -> Worker:
        if not self.workers[name].is_known:
            raise No("worker_not_found")
        return self.workers[name]


def _is_gone(run: Run, tried: Try, before: datetime | None) -> bool:
    """What its worker does not hold, by its own word: whether that means that nothing of it runs."""
    if tried.acknowledged_at is None:
        return not run.is_live(tried)
    return before is None or tried.acknowledged_at <= before


def _leased(run: Run, report: Json, worker: str) -> Try:
    if not 1 <= report["attempt"] <= len(run.tries):
        raise No("attempt_not_found")
    tried = run.tries[report["attempt"] - 1]
    if tried.lease is None or (tried.lease, tried.worker) != (report["lease_token"], worker):
        raise No("lease_lost")
    return tried


def _take(run: Run, tried: Try, report: Json, events: list[str], now: datetime) -> None:
    settled, declined = report.get("settled", False), report.get("declined", False)
    if not (settled or declined or run.is_live(tried)):
        raise No("lease_lost")
    tried.acknowledge(now)
    for event in events:
        if not run.is_live(tried):
            raise No("lease_lost")
        run.say(event, now)
    if declined:
        run.end(tried, "declined", now)
    if settled or declined:
        tried.settle()
    tried.seq = report["seq"]
