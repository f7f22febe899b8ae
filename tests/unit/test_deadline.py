"""Until when an attempt may stay in its state, and how it ends when that time is over."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models.definition import Timeouts
from gyoza.models.errors import Refusal
from gyoza.models.reasons import Reason
from gyoza.policy.deadline import PATIENCE_S, START_S, deadline
from gyoza.policy.life import Happening, Life, acknowledge, assign, cancel, expire, happen, outside, reported, take_back

from .builders import NOW, Assignment, E, S, assigned, at, event, failed, running, story, submitted, unleased

LIMITS = Timeouts(queue_s=100, start_s=20, run_s=50)
TERMINAL = [S.COMPLETED, S.FAILED, S.CANCELLED]


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    ("state", "limit_s"), [(S.PENDING, 100), (S.ASSIGNED, 20), *[(state, None) for state in TERMINAL]]
)
def test_each_state_has_its_own_limit_and_what_is_over_has_none(state: S, limit_s: float | None, held: bool):
    assert deadline(state, LIMITS, NOW, held=held) == (None if limit_s is None else at(limit_s))


def test_a_worker_is_left_some_time_to_end_by_itself_what_runs_too_long():
    assert deadline(S.RUNNING, LIMITS, NOW) == at(50)
    assert deadline(S.RUNNING, LIMITS, NOW, held=True) == at(50 + PATIENCE_S)


def test_nothing_is_limited_by_default_but_how_long_an_assignment_may_stay_unconfirmed():
    found = {state: deadline(state, Timeouts(), NOW, held=True) for state in S}
    assert found == {**dict.fromkeys(S), S.ASSIGNED: at(START_S)}


def limit(life: Life) -> datetime | None:
    return life.now_on.deadline


def test_every_change_of_state_sets_the_limit_of_the_state_that_it_leads_to():
    life = submitted(timeouts=LIMITS, max_attempts=2)
    assert limit(life) == at(100)
    life = assign(life, Assignment("w1", "lease"), at(1))
    assert limit(life) == at(21)
    life = reported(life, 1, event(E.STARTED), at(2))
    assert limit(life) == at(52 + PATIENCE_S)
    life = reported(life, 1, failed(), at(3))
    assert (life.tries[1].deadline, limit(life)) == (None, at(103))
    assert limit(outside(life, event(E.STARTED), at(4))) == at(54)
    assert limit(cancel(life, "", at(4))) is None


def test_a_pause_puts_off_the_limit_of_waiting():
    life = reported(running(timeouts=LIMITS, max_attempts=2, backoff_s=30), 1, failed(), at(1))
    assert limit(life) == at(131)


@pytest.mark.parametrize("what", [event(E.PROGRESS, 50), event(E.INFO), event(E.ERROR)], ids=lambda what: what.type)
def test_what_moves_no_run_prolongs_nothing(what: Happening):
    life = unleased(timeouts=LIMITS)
    assert limit(happen(life, what, at(40))) == limit(life)


def test_what_is_confirmed_takes_as_long_as_it_takes_to_start():
    assert limit(acknowledge(assigned(timeouts=LIMITS), 1, at(1))) is None


def test_a_confirmation_takes_no_limit_from_what_runs_already():
    """Somebody set RUNNING by hand before the worker was heard."""
    life = happen(assigned(timeouts=LIMITS), event(E.STARTED), at(1))
    assert limit(acknowledge(life, 1, at(2))) == at(51 + PATIENCE_S)


def test_a_limit_is_over_when_it_is_reached_and_not_before():
    life = submitted(timeouts=LIMITS)
    assert expire(life, 1, at(99.999)) is life
    assert expire(life, 1, at(100)).state is S.FAILED


def test_who_waited_too_long_is_not_retried():
    life = expire(submitted(timeouts=LIMITS, max_attempts=9), 1, at(100))
    assert (life.state, life.tries[1].reason, story(life)) == (S.FAILED, Reason.QUEUE_TIMEOUT, ["FAILED 1"])
    assert (life.budgets.user_failures, life.budgets.infra_losses) == (0, 0)


def test_an_assignment_that_nobody_confirmed_goes_back_at_no_cost():
    life = expire(assigned(timeouts=LIMITS), 1, at(20))
    assert (life.state, life.current, life.tries[1].reason) == (S.PENDING, 2, Reason.RELEASED)
    assert (life.budgets.user_failures, life.tries[1].settled_at) == (0, None)


def test_what_ran_too_long_spends_an_attempt_and_keeps_its_room_until_it_is_settled():
    life = expire(running(timeouts=LIMITS, max_attempts=2), 1, at(50 + PATIENCE_S))
    assert (life.state, life.current, life.budgets.user_failures) == (S.PENDING, 2, 1)
    assert (life.tries[1].reason, life.tries[1].settled_at) == (Reason.RUN_TIMEOUT, None)
    life = outside(life, event(E.STARTED), at(200))
    assert expire(life, 2, at(250)).state is S.FAILED


@pytest.mark.parametrize("life", [running(), acknowledge(assigned(timeouts=LIMITS), 1, NOW)], ids=["running", "held"])
def test_a_deadline_that_is_not_the_state_s_is_set_right_and_ends_nothing(life: Life):
    """A server of the version before does not know of deadlines: it moves a run and leaves that of the state before."""
    left = life.with_try(replace(life.now_on, deadline=at(1)))
    assert expire(left, 1, at(1000)) == left.with_try(replace(life.now_on, deadline=None))


@pytest.mark.parametrize("attempt", [1, 3])
def test_an_attempt_that_is_not_the_current_one_does_not_expire(attempt: int):
    life = take_back(running(timeouts=LIMITS), 1, Reason.DRAINED, "drained", at(1))
    assert expire(life, attempt, at(10_000)) is life


steps = st.lists(st.sampled_from([*E, "acknowledge", "assign"]), max_size=12)


@given(steps=steps, attempts=st.integers(1, 3), backoff_s=st.sampled_from([0, 30]))
def test_in_any_course_the_limit_is_that_of_the_state_since_it_was_entered(
    steps: list[str], attempts: int, backoff_s: int
):
    life = submitted(timeouts=LIMITS, max_attempts=attempts, backoff_s=backoff_s)
    entered, state, current = NOW, life.state, 1
    for seconds, step in enumerate(steps, start=1):
        life = stepped(life, step, at(seconds))
        if (life.state, life.current) != (state, current):
            state, current = life.state, life.current
            entered = life.run_at if life.run_at and state is S.PENDING else at(seconds)
        held = life.now_on.held_by is not None
        is_open = state is S.ASSIGNED and life.now_on.acknowledged_at is not None
        assert limit(life) == (None if is_open else deadline(state, LIMITS, entered, held=held))
        assert all(tried.deadline is None for n, tried in life.tries.items() if n != current)


def stepped(life: Life, step: str, now: datetime) -> Life:
    """What is refused changes nothing."""
    try:
        if step == "acknowledge":
            return acknowledge(life, life.current, now) if life.now_on.held_by else life
        if step == "assign":
            return assign(life, Assignment("w1", f"lease-{life.current}"), now) if life.due else life
        if life.now_on.is_leased:
            return reported(life, life.current, event(E(step), 50 if step == E.PROGRESS else ""), now)
        return outside(life, event(E(step), 50 if step == E.PROGRESS else ""), now)
    except (ValueError, Refusal):
        return life
