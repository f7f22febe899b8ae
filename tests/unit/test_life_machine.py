"""Any course a run can take, step by step beside a dictionary that says what must have come of it."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gyoza.models.errors import LeaseLost, Refusal
from gyoza.models.reasons import Reason
from gyoza.policy.life import Assignment, assign, cancel, leased, outside, reported, settle, take_back

from .builders import CONTRACT, OUTSIDE_REASONS, REASONS, E, at, event, failed, submitted

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}


def when(*states: str):
    return precondition(lambda self: self.truth["state"] in states)


class OneRun(RuleBasedStateMachine):
    @initialize(max_attempts=st.integers(1, 3))
    def submit(self, max_attempts: int):
        self.clock = 0
        self.life = submitted(max_attempts=max_attempts)
        self.truth: dict[str, Any] = {"state": "PENDING", "attempt": 1, "events": [], "leases": {}, "unsettled": set()}
        self.spent = {"user": 0, "infra": 0, "none": 0}
        self.limits = {"user": max_attempts, "infra": 5, "none": 10**9}
        self.forced = False

    @when("PENDING")
    @rule()
    def place(self):
        attempt = self.truth["attempt"]
        self.life = assign(self.life, Assignment(f"w{attempt}", f"lease-{attempt}"), self.now())
        self.truth["leases"][attempt] = f"lease-{attempt}"
        self.truth["unsettled"].add(attempt)
        self.must_write("ASSIGNED")

    @when("PENDING", "ASSIGNED")
    @rule()
    def start(self):
        self.say(event(E.STARTED))
        self.must_write("STARTED")

    @when("RUNNING")
    @rule(percent=st.integers(0, 100))
    def progress(self, percent: int):
        self.say(event(E.PROGRESS, percent))
        self.must_write("PROGRESS")
        assert self.life.now_on.progress == percent

    @when("RUNNING")
    @rule()
    def complete(self):
        self.say(event(E.COMPLETED, outputs={"y": 1}))
        self.must_write("COMPLETED")

    @when("ASSIGNED", "RUNNING")
    @rule(reason=st.sampled_from(OUTSIDE_REASONS), retryable=st.sampled_from([None, True, False]))
    def fail(self, reason: str, retryable: bool | None):
        self.say(failed(reason, retryable=retryable))
        self.must_fail(reason, may_retry=retryable is not False)

    @when("ASSIGNED", "RUNNING")
    @precondition(lambda self: self.truth["attempt"] in self.truth["leases"])
    @rule(reason=st.sampled_from(sorted(REASONS)))
    def lose(self, reason: str):
        self.life = take_back(self.life, self.truth["attempt"], Reason(reason), "taken back", self.now())
        self.must_fail(reason)

    @when("PENDING", "ASSIGNED", "RUNNING")
    @rule()
    def cancel(self):
        self.life = cancel(self.life, "Cancelled by user", self.now())
        self.must_write("CANCELLED")

    @when("FAILED", "CANCELLED")
    @rule()
    def retry(self):
        self.life = outside(self.life, event(E.RETRIED, force=True), self.now())
        self.forced = True
        self.must_write("RETRIED")

    @precondition(lambda self: self.truth["leases"])
    @rule(data=st.data(), type=st.sampled_from(E))
    def report_late(self, data: st.DataObject, type: E):
        attempt, lease = data.draw(st.sampled_from(sorted(self.truth["leases"].items())))
        if self.is_over(attempt):
            assert leased(self.life, attempt, lease).attempt == attempt
            with pytest.raises(LeaseLost):
                reported(self.life, attempt, event(type, 1), self.now())

    @rule(type=st.sampled_from(E))
    def say_what_the_table_forbids(self, type: E):
        if CONTRACT.get((self.truth["state"], type), ("", True))[1]:
            with pytest.raises(Refusal):
                outside(self.life, event(type, 1), self.now())

    @rule(attempt=st.integers(1, 8))
    def settle(self, attempt: int):
        self.life = settle(self.life, attempt, self.now())
        if self.is_over(attempt):
            self.truth["unsettled"].discard(attempt)

    def now(self):
        self.clock += 1
        return at(self.clock)

    def say(self, what: Any):
        """Reports as whoever may: the holder of the lease, or a program where there is none."""
        attempt = self.truth["attempt"]
        if attempt in self.truth["leases"]:
            self.life = reported(self.life, attempt, what, self.now())
        else:
            self.life = outside(self.life, what, self.now())

    def must_write(self, type: str):
        self.truth["attempt"] += type == "RETRIED"
        self.truth["events"].append((type, self.truth["attempt"]))
        self.truth["state"] = CONTRACT[self.truth["state"], type][0]

    def must_fail(self, reason: str, *, may_retry: bool = True):
        budget, is_retried = REASONS[reason]
        self.spent[budget] += 1
        self.must_write("FAILED")
        if is_retried and may_retry and self.spent[budget] < self.limits[budget]:
            self.must_write("RETRIED")

    def is_over(self, attempt: int) -> bool:
        return attempt < self.truth["attempt"] or self.truth["state"] in TERMINAL

    @invariant()
    def the_run_is_where_the_dictionary_says(self):
        assert (self.life.state, self.life.current) == (self.truth["state"], self.truth["attempt"])
        assert (self.life.budgets.user_failures, self.life.budgets.infra_losses) == (
            self.spent["user"],
            self.spent["infra"],
        )

    @invariant()
    def events_are_gapless_and_attempts_never_fall(self):
        assert [(entry.type, entry.attempt) for entry in self.life.events] == self.truth["events"]
        assert [entry.id for entry in self.life.events] == list(range(self.life.next_event))
        attempts = [entry.attempt for entry in self.life.events]
        assert attempts == sorted(attempts)

    @invariant()
    def a_terminal_state_is_left_by_a_retry_alone(self):
        state = "PENDING"
        for entry in self.life.events:
            assert entry.type == "RETRIED" or state not in TERMINAL
            state = CONTRACT[state, entry.type][0]
        assert state == self.life.state

    @invariant()
    def one_attempt_at_most_is_leased_and_that_is_the_current_one(self):
        assert [tried.attempt for tried in self.life.tries.values() if tried.is_leased] in ([], [self.life.current])

    @invariant()
    def room_is_held_from_assignment_until_settled(self):
        held = {tried.attempt for tried in self.life.tries.values() if tried.held_by and not tried.settled_at}
        assert held == self.truth["unsettled"]

    @invariant()
    def no_budget_is_overspent_unless_a_person_said_so(self):
        assert self.forced or all(self.spent[budget] <= self.limits[budget] for budget in self.spent)


OneRun.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestAnyCourseOfARun = OneRun.TestCase
