"""FAILED, and RETRIED after it: by its reason, and while its budget lasts."""

import pytest

from gyoza.models.errors import OpRunLockedException
from gyoza.models.reasons import Reason
from gyoza.policy.life import cancel, happen, outside, reported, take_back
from gyoza.policy.retry import Budgets

from .builders import (
    NOW,
    OUTSIDE_REASONS,
    REASONS,
    E,
    S,
    at,
    event,
    failed,
    running,
    story,
    submitted,
    through,
    unleased,
)


@pytest.mark.parametrize("reason", OUTSIDE_REASONS)
def test_a_failure_is_followed_by_a_retry_or_not_as_its_reason_says(reason: str):
    spends, is_retried = REASONS[reason]
    life = reported(running(max_attempts=2), 1, failed(reason), at(1))
    assert story(life)[2:] == ["FAILED 1"] + ["RETRIED 2"] * is_retried
    assert life.state is (S.PENDING if is_retried else S.FAILED)
    assert life.budgets == Budgets(int(spends == "user"), int(spends == "infra"))
    assert life.tries[1].reason is Reason(reason)


@pytest.mark.parametrize("reason", REASONS)
def test_what_the_server_takes_back_is_retried_by_the_same_rules(reason: str):
    spends, is_retried = REASONS[reason]
    life = take_back(running(max_attempts=2), 1, Reason(reason), "taken back", NOW)
    assert story(life)[2:] == ["FAILED 1"] + ["RETRIED 2"] * is_retried
    assert life.budgets == Budgets(int(spends == "user"), int(spends == "infra"))


def test_the_retry_names_its_reason():
    life = reported(running(max_attempts=2), 1, failed("op_error"), NOW)
    assert (life.events[-1].msg, life.events[-1].payload) == ("Retried after op_error", {"reason": "op_error"})


def test_an_op_that_says_not_retryable_ends_its_run():
    life = reported(running(max_attempts=9), 1, failed("op_error", retryable=False), NOW)
    assert (life.state, life.current) == (S.FAILED, 1)


def test_the_op_may_fail_as_often_as_its_policy_allows():
    life = through(through(submitted(max_attempts=3), "op_error"), "oom_killed")
    assert life.state is S.PENDING
    life = through(life, "run_timeout")
    assert (life.state, life.current, life.budgets) == (S.FAILED, 3, Budgets(3, 0))


def test_the_infrastructure_may_lose_a_run_five_times():
    life = submitted()
    for _ in range(4):
        life = through(life, "disk_full")
        assert life.state is S.PENDING
    life = through(life, "start_timeout")
    assert (life.state, life.current, life.budgets) == (S.FAILED, 5, Budgets(0, 5))


def test_the_two_budgets_are_counted_apart():
    life = submitted(max_attempts=2)
    for reason in ["disk_full"] * 4 + ["op_error"] + ["drained"] * 9:
        life = through(life, reason)
        assert life.state is S.PENDING
    assert (life.budgets, life.current) == (Budgets(1, 4), 15)
    assert through(life, "op_error").state is S.FAILED
    assert through(life, "start_failed").state is S.FAILED


def test_a_person_may_retry_beyond_the_budgets_once_at_a_time():
    over = through(submitted(), "op_error")
    life = outside(over, event(E.RETRIED, "Manual retry", force=True), at(9))
    assert (life.state, life.current, life.budgets) == (S.PENDING, 2, over.budgets)
    assert (life.events[-1].msg, life.events[-1].payload) == ("Manual retry", {"force": True})
    assert (through(life, "op_error").state, through(life, "op_error").budgets) == (S.FAILED, Budgets(2, 0))


def test_a_cancelled_run_may_be_retried_and_a_completed_one_may_not():
    again = event(E.RETRIED, force=True)
    assert outside(cancel(running(), "", NOW), again, NOW).state is S.PENDING
    with pytest.raises(OpRunLockedException):
        outside(reported(running(), 1, event(E.COMPLETED), NOW), again, NOW)


def test_a_new_attempt_starts_clean_and_leaves_the_old_one_as_it_was():
    life = reported(running(max_attempts=2), 1, event(E.PROGRESS, 60), NOW)
    life = reported(life, 1, failed("op_error"), NOW)
    opened = life.now_on
    assert (opened.progress, opened.held_by, opened.lease, opened.reason, opened.started_at) == (
        0,
        None,
        None,
        None,
        None,
    )
    assert (life.tries[1].progress, life.tries[1].held_by, life.tries[1].state) == (60, "w1", S.FAILED)


def test_the_table_alone_retries_nothing():
    assert happen(unleased(max_attempts=9), failed("op_error"), NOW).state is S.FAILED
