"""What an event leaves behind on a run and its attempts."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gyoza.models.definition import Timeouts
from gyoza.models.errors import OpRunLockedException, TransitionRefused
from gyoza.models.reasons import Reason
from gyoza.policy.life import (
    Assignment,
    Life,
    acknowledge,
    assign,
    cancel,
    happen,
    outside,
    queue_at,
    reported,
    settle,
    take_back,
)
from gyoza.policy.retry import Budgets

from .builders import NOW, E, S, assigned, at, event, failed, moved_on, running, story, submitted, unleased


def test_an_assignment_binds_worker_lease_and_gpus():
    life = assign(submitted(), Assignment("w1", "lease-1", (0, 1)), at(1))
    held = life.now_on
    assert (held.held_by, held.lease, held.gpu_ids, held.assigned_at) == ("w1", "lease-1", (0, 1), at(1))
    assert life.events[-1].payload == {"worker_id": "w1", "gpu_ids": [0, 1]}


def test_a_run_is_assigned_once():
    with pytest.raises(TransitionRefused):
        assign(assigned(), Assignment("w2", "lease-2"), NOW)


def test_a_failure_leaves_its_reason_and_what_was_said_of_it():
    life = reported(running(), 1, failed("oom_killed", error_message="boom", exit_code=137, signal=9), at(3))
    assert life.now_on.reason is Reason.OOM_KILLED
    summary = life.now_on.summary
    assert (summary.error_message, summary.exit_code, summary.signal, summary.duration_ms) == ("boom", 137, 9, 3000)


def test_a_failure_from_outside_without_a_reason_is_external():
    life = outside(unleased(), failed(error_message="no luck"), NOW)
    assert (life.now_on.reason, life.budgets) == (Reason.EXTERNAL, Budgets(user_failures=1))


def test_a_completion_without_outputs_keeps_those_that_are_there():
    life = unleased()
    life = life.with_try(replace(life.now_on, outputs={"kept": 1}))
    assert outside(life, event(E.COMPLETED), NOW).now_on.outputs == {"kept": 1}


def test_what_never_started_has_no_duration():
    life = cancel(submitted(), "Cancelled by user", NOW)
    assert (life.now_on.reason, life.now_on.summary.duration_ms) == (Reason.CANCELLED, None)


@pytest.mark.parametrize("type", [E.INFO, E.ERROR])
def test_a_note_moves_nothing_but_the_timeline(type: E):
    before, after = running(), outside(running(), event(type, "look", n=1), at(1))
    assert replace(after, events=before.events, next_event=before.next_event) == before
    assert (after.events[-1].msg, after.events[-1].payload, after.events[-1].t) == ("look", {"n": 1}, at(1))


def test_a_worker_s_own_time_is_kept_beside_the_server_s():
    life = reported(running(), 1, replace(event(E.PROGRESS, 5), at=at(-3)), at(1))
    assert (life.events[-1].t, life.events[-1].at) == (at(1), at(-3))


def test_a_payload_is_kept_as_it_was_received():
    received = '{"outputs": {"y": 1e400}}'
    done = replace(event(E.COMPLETED, outputs={"y": 1}), received=received, outputs='{"y": 1e400}')
    life = outside(unleased(), done, NOW)
    assert (life.events[-1].payload, life.now_on.outputs) == (received, '{"y": 1e400}')


def test_events_are_numbered_without_a_gap_over_attempts():
    life = moved_on()
    assert [entry.id for entry in life.events] == [0, 1, 2, 3, 4]
    assert story(life) == ["ASSIGNED 1", "STARTED 1", "FAILED 1", "RETRIED 2", "ASSIGNED 2"]
    assert life.next_event == 5


def test_the_numbers_go_on_where_the_store_left_them():
    assert outside(replace(submitted(), next_event=12), event(E.INFO), NOW).events[0].id == 12


def test_what_was_touched_is_what_must_be_written():
    assert submitted().touched == frozenset()
    life = replace(running(), touched=frozenset())
    assert take_back(life, 1, Reason.WORKER_LOST, "lost", NOW).touched == {1, 2}


def test_what_is_taken_back_ends_failed_with_its_reason():
    life = take_back(running(), 1, Reason.RUN_TIMEOUT, "ran longer than 5 s", at(5))
    assert (life.state, life.now_on.reason) == (S.FAILED, Reason.RUN_TIMEOUT)
    assert life.now_on.summary.error_message == life.events[-1].msg == "ran longer than 5 s"


def test_the_server_ends_what_waited_too_long():
    life = take_back(submitted(), 1, Reason.QUEUE_TIMEOUT, "waited 60 s", NOW)
    assert (life.state, story(life), life.budgets) == (S.FAILED, ["FAILED 1"], Budgets())


@pytest.mark.parametrize(
    ("life", "attempt"),
    [(moved_on(), 1), (cancel(running(), "", NOW), 1), (running(), 2)],
    ids=["moved-on", "over", "never-was"],
)
def test_what_is_over_already_is_not_taken_back(life: Life, attempt: int):
    assert take_back(life, attempt, Reason.WORKER_LOST, "", NOW) is life


def test_a_cancelled_run_cannot_be_cancelled_again():
    with pytest.raises(OpRunLockedException):
        cancel(cancel(running(), "", NOW), "", NOW)


def test_an_attempt_is_acknowledged_once():
    life = acknowledge(assigned(), 1, at(1))
    assert life.now_on.acknowledged_at == at(1)
    assert acknowledge(life, 1, at(2)) is life
    assert acknowledge(life, 7, at(2)) is life


def test_an_acknowledgement_ends_the_time_for_itself_and_no_other():
    life = acknowledge(assigned(), 1, at(1))
    assert life.now_on.deadline is None
    started_by_update = happen(replace(assigned(), timeouts=Timeouts(run_s=5)), event(E.STARTED), at(1))
    life = acknowledge(started_by_update, 1, at(2))
    assert life.now_on.deadline == started_by_update.now_on.deadline is not None


def test_a_point_of_priority_is_worth_an_hour_of_waiting():
    assert queue_at(NOW, 0) == NOW
    assert queue_at(NOW, 5) == NOW - timedelta(hours=5)
    assert queue_at(NOW, -1000) > queue_at(NOW, 1000)
    assert queue_at(NOW, 5) == queue_at(NOW + timedelta(hours=1), 6)


def test_a_retried_run_enters_the_queue_anew_with_its_priority():
    life = take_back(running(priority=3), 1, Reason.DRAINED, "drained", at(50))
    assert life.queue_at == at(50) - timedelta(hours=3)


@pytest.mark.parametrize(
    "ended",
    [
        reported(running(), 1, event(E.COMPLETED), at(1)),
        reported(running(), 1, failed("op_error"), at(1)),
        cancel(running(), "", at(1)),
        cancel(assigned(), "", at(1)),
        take_back(running(), 1, Reason.WORKER_LOST, "", at(1)),
    ],
    ids=["completed", "failed", "cancelled", "cancelled-early", "lost"],
)
def test_room_is_held_until_settled_and_given_back_once(ended: Life):
    assert ended.tries[1].settled_at is None
    settled = settle(ended, 1, at(5))
    assert settled == ended.with_try(replace(ended.tries[1], settled_at=at(5)))
    assert settle(settled, 1, at(9)) is settled


@pytest.mark.parametrize("life", [submitted(), assigned(), running()], ids=["pending", "assigned", "running"])
def test_what_still_runs_is_not_settled(life: Life):
    assert settle(life, 1, NOW) is life


def test_settling_an_attempt_that_is_not_there_changes_nothing():
    life = running()
    assert settle(life, 7, NOW) is life
