"""FAILED, and RETRIED after it: by its reason, while its budget lasts, and after a pause."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gyoza.models.errors import OpRunLockedException
from gyoza.models.reasons import Reason
from gyoza.policy.life import Life, cancel, happen, outside, reported, take_back
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


def again_at(life: Life) -> tuple[S, object, bool, object]:
    """Whether it waits, until when, whether it is due, and where it stands in the queue without its priority."""
    return life.state, life.run_at, life.due, life.queue_at + life.priority * timedelta(hours=1)


def test_a_pause_is_a_time_before_which_the_next_attempt_waits_and_its_wait_counts_from_its_end():
    life = reported(running(max_attempts=3, backoff_s=30), 1, failed("op_error"), at(5))
    assert again_at(life) == (S.PENDING, at(35), False, at(35))
    life = outside(life, event(E.STARTED), at(6))
    life = outside(life, failed("op_error"), at(7))
    assert again_at(life) == (S.PENDING, at(67), False, at(67))


def test_without_a_pause_the_next_attempt_is_due_at_once():
    life = reported(running(max_attempts=3), 1, failed("op_error"), at(5))
    assert again_at(life) == (S.PENDING, None, True, at(5))


@pytest.mark.parametrize("reason", ["released", "drained"])
def test_what_costs_nothing_is_due_at_once_whatever_came_before(reason: str):
    life = reported(running(max_attempts=3, backoff_s=30), 1, failed("op_error"), at(5))
    life = happen(life, event(E.STARTED), at(40))
    life = take_back(life, 2, Reason(reason), "taken back", at(50))
    assert again_at(life) == (S.PENDING, None, True, at(50))


def test_a_loss_pauses_like_a_failure():
    life = take_back(running(backoff_s=30), 1, Reason.WORKER_LOST, "lost", at(5))
    assert again_at(life) == (S.PENDING, at(35), False, at(35))


def test_a_cancelled_pause_that_is_retried_by_hand_is_over():
    life = reported(running(max_attempts=3, backoff_s=30), 1, failed("op_error"), at(5))
    life = outside(cancel(life, "", at(6)), event(E.RETRIED, force=True), at(7))
    assert again_at(life) == (S.PENDING, None, True, at(7))


def test_the_chance_of_a_pause_is_the_same_for_the_same_attempt_and_another_for_the_next_one():
    def pauses(run_id: str) -> list[float]:
        life, found = replace(running(max_attempts=9, backoff_s=100, backoff_factor=1, jitter=0.5), run_id=run_id), []
        for _ in range(8):
            life = happen(life, event(E.STARTED), NOW) if life.state is S.PENDING else life
            life = replace(life, tries={n: replace(tried, lease=None) for n, tried in life.tries.items()})
            life = outside(life, failed("op_error"), NOW)
            found.append((life.run_at - NOW).total_seconds() if life.run_at else 0)
        return found

    assert pauses("one") == pauses("one")
    assert len({*pauses("one"), *pauses("two")}) == 16
    assert all(50 < pause_s <= 100 for pause_s in pauses("one"))


def test_a_reason_that_is_named_as_final_ends_the_run_and_one_that_is_not_named_to_be_retried_too():
    assert reported(running(max_attempts=9, fail_on=("oom_killed",)), 1, failed("oom_killed"), NOW).state is S.FAILED
    assert reported(running(max_attempts=9, retry_on=("oom_killed",)), 1, failed("op_error"), NOW).state is S.FAILED
    assert reported(running(max_attempts=9, retry_on=("oom_killed",)), 1, failed("oom_killed"), NOW).state is S.PENDING
    assert reported(running(fail_on=("disk_full",)), 1, failed("disk_full"), NOW).state is S.FAILED
