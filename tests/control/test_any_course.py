"""Any course that a cluster can take, step by step beside dictionaries that say what must have come of it."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gyoza.control.append import append
from gyoza.control.report import Report
from gyoza.control.submit import AdHoc, OfDefinition, Options
from gyoza.models.definition import Execution, OpDefinition
from gyoza.models.errors import NotRegistered, Refusal
from gyoza.models.lifecycle import EventType as E
from gyoza.models.resources import Constraints, Resources
from gyoza.policy.life import Happening
from gyoza.store.database import Database

from .stage import Cluster, Still, failed, said
from .truth import ALLOWED, Hold, Run, Truth, Worker

T = TypeVar("T")

WORKERS = {"w1": 2000, "w2": 3000}
ENDINGS = ["COMPLETED", "FAILED op_error", "FAILED disk_full"]
CPUS = [1000, 2000]
PATIENCE_S = 40.0
EVENTS = [None, "STARTED", "PROGRESS", *ENDINGS]

workers = st.sampled_from(sorted(WORKERS))
picks = st.integers(0, 5)
events = st.sampled_from(EVENTS)


def patient(cpu_m: int) -> OpDefinition:
    execution = Execution(server_lost_s=PATIENCE_S)
    return OpDefinition(f"patient-{cpu_m}", image="busybox", constraints=Constraints(cpu_m), execution=execution)


def happening(event: str) -> Happening:
    kind, _, reason = event.partition(" ")
    return failed(reason) if reason else Happening(E(kind), 50 if kind == "PROGRESS" else "")


def has_been_told(course: "AnyCourse") -> bool:
    return any(hold.told for hold in course.truth.holds.values())


class AnyCourse(RuleBasedStateMachine):
    """`loop` and `cluster` are set by the test: one database serves all courses."""

    loop: asyncio.AbstractEventLoop
    cluster: Cluster

    def __init__(self) -> None:
        super().__init__()
        self.do(self.cluster.clear())
        self.do(self.cluster.lead())
        for cpu_m in CPUS:
            self.do(self.cluster.deploy(patient(cpu_m)))
        self.truth = Truth({name: Worker(cpu_m) for name, cpu_m in WORKERS.items()})
        self.applied: Report | None = None

    def do(self, asked: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asked)

    @property
    def now(self) -> Any:
        return self.cluster.now

    def a_run(self, pick: int) -> str:
        return list(self.truth.runs)[-1 - pick % len(self.truth.runs)]

    def a_hold(self, pick: int) -> Hold:
        """One that its worker has heard of; it may long be over."""
        told = [hold for hold in self.truth.holds.values() if hold.told]
        return told[-1 - pick % len(told)]

    @initialize(runs=st.integers(1, 3))
    def begin(self, runs: int):
        for name in WORKERS:
            self.beat(name)
        for attempts in range(1, runs + 1):
            self.submit(attempts, 1000, waits=attempts == 1)
        self.hand_out()

    @rule(attempts=st.integers(1, 3), cpu_m=st.sampled_from(CPUS), waits=st.booleans())
    def submit(self, attempts: int, cpu_m: int, waits: bool):
        """`waits`: its op has more patience with a silent worker than a lease lasts."""
        self.cluster.later(0.001)  # so that the order of ids, and with it the course, can be repeated
        options = Options(retry_policy={"max_attempts": attempts})
        name = patient(cpu_m).id
        wanted = (
            OfDefinition(name, {}, {}, options=options) if waits else AdHoc("busybox", {}, options, Constraints(cpu_m))
        )
        run_id = self.do(self.cluster.ask_for(wanted)).id
        self.truth.runs[run_id] = Run(attempts, cpu_m, PATIENCE_S if waits else 0)

    @rule(seconds=st.sampled_from([1, 10, 25, 61]), heard=st.sampled_from([(), ("w1",), ("w2",), ("w1", "w2")]))
    def time_passes(self, seconds: int, heard: tuple[str, ...]):
        """Whoever is not heard after it may be evicted."""
        self.cluster.later(seconds)
        for name in heard:
            self.beat(name)
        assert self.do(self.cluster.reap()) == self.truth.reap(self.now)

    @rule(name=workers)
    def beat(self, name: str):
        """Also how a worker comes, and comes back after it was evicted."""
        self.beat_as(name, self.truth.workers[name].instance)

    @rule(name=workers)
    def restart(self, name: str):
        self.truth.workers[name].has.clear()
        self.beat_as(name, self.truth.workers[name].instance + 1)

    def beat_as(self, name: str, instance: int) -> None:
        worker, to_stop = self.truth.workers[name], self.truth.to_stop(name)
        says = {"resources": Resources(worker.cpu_m, 100_000, 100), "instance": f"{name}-{instance}"}
        heard = self.do(self.cluster.beat(name, worker.has, **says))
        assert {(stop.run_id, stop.attempt) for stop in heard.stop} == to_stop
        self.truth.beat(name, self.now, instance=instance)

    @precondition(lambda self: any(self.truth.may_be_placed()))
    @rule()
    def hand_out(self):
        self.place()
        for name in WORKERS:
            self.claim(name)

    @precondition(lambda self: any(self.truth.may_be_placed()))
    @rule()
    def place(self):
        placed = self.do(self.cluster.place())
        rows = self.do(self.cluster.ask("SELECT run_id, held_by FROM attempts WHERE state = 'ASSIGNED' ORDER BY 1"))
        new = [(run_id, worker) for run_id, worker in rows if self.truth.runs[run_id].state == "PENDING"]
        assert len(new) == placed
        for run_id, worker in new:
            self.truth.place(run_id, worker, self.now)
        for run_id in self.truth.may_be_placed():
            wanted = self.truth.runs[run_id].cpu_m
            assert all(self.truth.free_cpu_m(name) < wanted for name, w in self.truth.workers.items() if w.lives)

    @rule(name=workers)
    def claim(self, name: str):
        worker, looking = self.truth.workers[name], self.look(name)
        if not worker.lives:
            with pytest.raises(NotRegistered):
                self.do(looking)
            return
        claimed = self.do(looking)
        assert {(each.run_id, each.attempt) for each in claimed.assignments} == self.truth.to_claim(name)
        assert {(stop.run_id, stop.attempt) for stop in claimed.stop} == self.truth.to_stop(name)
        for each in claimed.assignments:
            self.truth.holds[each.run_id, each.attempt].told = each
            worker.has.add((each.run_id, each.attempt))

    def look(self, name: str) -> Any:
        worker = self.truth.workers[name]
        return self.cluster.look(name, worker.has, instance=f"{name}-{worker.instance}")

    @precondition(has_been_told)
    @rule(pick=picks, ending=st.sampled_from(ENDINGS), settled=st.booleans())
    def go_on(self, pick: int, ending: str, settled: bool):
        """What a worker would report next."""
        hold = self.a_hold(pick)
        event = "STARTED" if hold.is_to_start else ending if hold.is_live else None
        self.report(pick, event, settled=settled or not event)

    @precondition(has_been_told)
    @rule(pick=picks, event=events, settled=st.booleans())
    def report(self, pick: int, event: str | None, settled: bool):
        """In time or late: the run may have gone on, the worker may have been evicted or started anew."""
        hold = self.a_hold(pick)
        assert hold.told
        seq = hold.seq + 1
        wanted = said(hold.told, seq, *([happening(event)] if event else []), settled=settled)
        (result,) = self.do(self.cluster.tell_all(wanted))
        code = self.truth.report(hold, seq, event, self.now, settled=settled)
        assert (result.ok, result.code, result.state) == (code is None, code, hold.run.state)
        self.applied = wanted if result.ok else self.applied
        if hold.settled:
            self.truth.workers[hold.worker].has.discard(hold.name)

    @precondition(lambda self: self.applied)
    @rule()
    def repeat_a_report(self):
        assert self.applied
        (result,) = self.do(self.cluster.tell_all(self.applied))
        assert (result.ok, result.code) == (True, None)

    @precondition(has_been_told)
    @rule(pick=picks)
    def decline(self, pick: int):
        hold = self.a_hold(pick)
        assert hold.told
        assert self.do(self.cluster.tell(hold.told, hold.seq + 1, declined=True)).ok
        self.truth.decline(hold, self.now)
        self.truth.workers[hold.worker].has.discard(hold.name)

    @precondition(lambda self: self.truth.runs)
    @rule(pick=picks, event=st.sampled_from(["STARTED", "PROGRESS", "COMPLETED", "FAILED external"]))
    def say_from_outside(self, pick: int, event: str):
        run_id = self.a_run(pick)
        run, (kind, _, reason) = self.truth.runs[run_id], event.partition(" ")
        is_leased = any(hold.is_live for hold in self.truth.holds.values() if hold.run is run)
        allowed = not is_leased and run.state in ALLOWED[kind]
        self.ask(allowed, append(self.cluster.database, run_id, happening(event), self.now))
        if allowed:
            self.truth.say(run, kind, reason)

    @precondition(lambda self: self.truth.runs)
    @rule(pick=picks)
    def cancel(self, pick: int):
        run_id = self.a_run(pick)
        run = self.truth.runs[run_id]
        allowed = not run.is_over
        self.ask(allowed, self.cluster.cancel(run_id))
        if allowed:
            run.write("CANCELLED", "CANCELLED")

    @precondition(lambda self: self.truth.runs)
    @rule(pick=picks)
    def retry(self, pick: int):
        run_id = self.a_run(pick)
        run = self.truth.runs[run_id]
        allowed = run.state in {"FAILED", "CANCELLED"}
        self.ask(allowed, self.cluster.retry(run_id))
        if allowed:
            run.write("RETRIED", "PENDING")

    def ask(self, allowed: bool, asked: Coroutine[Any, Any, Any]) -> None:
        if allowed:
            self.do(asked)
            return
        with pytest.raises(Refusal):
            self.do(asked)

    @invariant()
    def every_run_is_where_the_truth_says(self):
        query = "SELECT id, state, current_attempt, user_failures, infra_losses FROM runs"
        found = {row[0]: row[1:] for row in self.do(self.cluster.ask(query))}
        assert found == {
            run_id: (run.state, run.attempt, run.spent["user"], run.spent["infra"])
            for run_id, run in self.truth.runs.items()
        }

    @invariant()
    def events_are_gapless_and_attempts_never_fall(self):
        query = "SELECT run_id, n, type || ' ' || attempt FROM events ORDER BY run_id, n"
        stories: dict[str, list[str]] = {run_id: [] for run_id in self.truth.runs}
        for run_id, n, told in self.do(self.cluster.ask(query)):
            assert n == len(stories[run_id])
            stories[run_id].append(told)
        assert stories == {run_id: run.story for run_id, run in self.truth.runs.items()}

    @invariant()
    def room_is_never_below_zero_and_no_run_is_on_two_workers(self):
        query = "SELECT run_id, attempt, held_by, state, cpu_m FROM attempts WHERE held_by <> '' AND settled_at IS NULL"
        rows = self.do(self.cluster.ask(query))
        assert {row[:2] for row in rows} == {hold.name for hold in self.truth.holds.values() if not hold.settled}
        on_worker = Counter[str]()
        for _, _, worker, _, cpu_m in rows:
            on_worker[worker] += cpu_m
        assert all(taken <= WORKERS[worker] for worker, taken in on_worker.items())
        at_work = Counter(run_id for run_id, _, _, state, _ in rows if state in {"ASSIGNED", "RUNNING"})
        assert set(at_work.values()) <= {1}


@pytest.mark.timeout(600)  # a course that fails is made as short as can be, which takes time
def test_any_course_of_a_cluster(stage_url: str):
    loop = asyncio.new_event_loop()
    database = Database(stage_url, clock=Still())
    loop.run_until_complete(database.__aenter__())
    AnyCourse.loop, AnyCourse.cluster = loop, Cluster(database)
    try:
        run_state_machine_as_test(AnyCourse, settings=settings(max_examples=30, stateful_step_count=35, deadline=None))
    finally:
        loop.run_until_complete(database.__aexit__())
        loop.close()
