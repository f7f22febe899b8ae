"""Who may say what happened to a run, and who is told that it is no longer theirs."""

from dataclasses import replace

import pytest

from gyoza.models.errors import (
    AttemptIsLeased,
    AttemptNotFound,
    LeaseLost,
    OpRunLockedException,
    Refusal,
    StaleAttempt,
    TransitionRefused,
)
from gyoza.models.run import ExecutionSummary
from gyoza.policy.life import Life, cancel, leased, outside, reported

from .builders import NOW, E, S, assigned, at, event, moved_on, running, story, submitted, unleased

HOLDER_ALONE = [E.STARTED, E.PROGRESS, E.COMPLETED, E.FAILED]


@pytest.mark.parametrize("type", HOLDER_ALONE)
@pytest.mark.parametrize("life", [assigned(), running()], ids=["assigned", "running"])
def test_what_a_worker_holds_is_reported_by_that_worker_alone(life: Life, type: E):
    with pytest.raises(AttemptIsLeased, match="held by worker 'w1'"):
        outside(life, event(type, 1), NOW)


@pytest.mark.parametrize("type", [E.CANCELLED, E.INFO, E.ERROR])
def test_anyone_may_cancel_or_note_on_what_a_worker_holds(type: E):
    assert story(outside(running(), event(type), NOW))[-1] == f"{type} 1"


def test_a_program_may_execute_a_run_by_itself_without_lease_or_room():
    life = outside(submitted(), event(E.STARTED, worker_id="mine", gpu_id=2), NOW)
    life = outside(life, event(E.PROGRESS, 40), at(1))
    life = outside(life, event(E.COMPLETED, outputs={"y": 2}), at(2))
    assert (life.state, life.now_on.progress, life.now_on.outputs) == (S.COMPLETED, 100, {"y": 2})
    assert life.now_on.summary == ExecutionSummary(duration_ms=2000, worker_id="mine", gpu_id=2)
    assert (life.now_on.started_at, life.now_on.finished_at, life.now_on.settled_at) == (NOW, at(2), at(2))


def test_nobody_outside_assigns_a_run_or_fails_one_that_waits():
    for type in (E.ASSIGNED, E.FAILED):
        with pytest.raises(TransitionRefused):
            outside(submitted(), event(type), NOW)


def test_the_current_attempt_may_be_named():
    assert outside(unleased(), event(E.PROGRESS, 7), NOW, attempt=1).now_on.progress == 7


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_an_attempt_that_is_not_the_current_one_is_stale(attempt: int):
    with pytest.raises(StaleAttempt, match="that is attempt 2"):
        outside(moved_on(), event(E.INFO), NOW, attempt=attempt)


def test_stale_is_said_before_leased_and_leased_before_refused_by_the_table():
    with pytest.raises(StaleAttempt):
        outside(assigned(), event(E.COMPLETED), NOW, attempt=2)
    with pytest.raises(AttemptIsLeased):
        outside(assigned(), event(E.COMPLETED), NOW)


def test_a_run_that_is_over_is_locked_and_no_longer_leased():
    over = reported(running(), 1, event(E.COMPLETED), NOW)
    with pytest.raises(OpRunLockedException):
        outside(over, event(E.PROGRESS, 1), NOW)
    with pytest.raises(StaleAttempt):
        outside(over, event(E.PROGRESS, 1), NOW, attempt=9)


def test_a_lease_finds_its_attempt_also_after_the_run_moved_on():
    life = moved_on()
    assert leased(life, 1, "lease-1").attempt == 1
    assert leased(life, 2, "lease-2").held_by == "w2"


@pytest.mark.parametrize(("attempt", "lease"), [(1, "lease-2"), (2, "lease-1"), (2, ""), (1, "guess")])
def test_a_lease_of_another_attempt_is_lost(attempt: int, lease: str):
    with pytest.raises(LeaseLost):
        leased(moved_on(), attempt, lease)


@pytest.mark.parametrize("attempt", [-1, 0, 2])
def test_an_attempt_that_never_was_is_not_found(attempt: int):
    with pytest.raises(AttemptNotFound, match=f"has no attempt {attempt}"):
        leased(running(), attempt, "lease-1")


def test_an_attempt_that_the_life_no_longer_carries_has_lost_its_lease():
    life = moved_on()
    with pytest.raises(LeaseLost):
        leased(replace(life, tries={2: life.tries[2]}), 1, "lease-1")


@pytest.mark.parametrize("type", E)
def test_a_stale_attempt_changes_nothing(type: E):
    with pytest.raises(LeaseLost):
        reported(moved_on(), 1, event(type, 1), NOW)


@pytest.mark.parametrize("type", E)
def test_a_report_on_a_run_that_is_over_has_lost_its_lease(type: E):
    with pytest.raises(LeaseLost):
        reported(cancel(running(), "Cancelled by user", NOW), 1, event(type, 1), NOW)


def test_a_worker_s_report_obeys_the_table():
    with pytest.raises(TransitionRefused):
        reported(assigned(), 1, event(E.PROGRESS, 1), NOW)
    with pytest.raises(TransitionRefused):
        reported(running(), 1, event(E.STARTED), NOW)


@pytest.mark.parametrize("refusal", [AttemptIsLeased, LeaseLost, StaleAttempt])
def test_what_fences_is_a_conflict(refusal: type[Refusal]):
    assert [parent.__name__ for parent in refusal.__mro__[1:3]] == ["Conflict", "Refusal"]
