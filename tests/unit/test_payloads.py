"""What an event may say, and when that is looked at: after stale, leased and locked."""

from typing import Any

import pytest

from gyoza.models.errors import AttemptIsLeased, Malformed, OpRunLockedException
from gyoza.models.payloads import faults
from gyoza.policy.life import cancel, outside, reported

from .builders import NOW, OUTSIDE_REASONS, SERVER_REASONS, E, assigned, event, running, unleased

TEXTS, WHOLE, OTHERS = ["", "text"], [0, -1, 137], [True, False, 1.0, 1.5, [], ["a"], {}, {"a": 1}]
MEMBERS: list[tuple[E, str, list[Any], list[Any]]] = [
    (E.STARTED, "worker_id", TEXTS, [*WHOLE, *OTHERS]),
    (E.STARTED, "gpu_id", [*TEXTS, *WHOLE, 1.5], [True, False, [], {}]),
    (E.COMPLETED, "outputs", [{}, {"y": 1}], [[], "text", 1, True]),
    (E.FAILED, "error_message", TEXTS, [*WHOLE, *OTHERS]),
    (E.FAILED, "reason", OUTSIDE_REASONS, [*sorted(SERVER_REASONS), "unheard_of", "", 1, True, [], {}]),
    (E.FAILED, "exit_code", WHOLE, ["1", 2**31, *OTHERS]),
    (E.FAILED, "signal", WHOLE, ["9", 2**31, *OTHERS]),
    (E.FAILED, "retryable", [True, False], [0, 1, "true", [], {}]),
    (E.RETRIED, "force", [True, False], [0, 1, "true", [], {}]),
]
GOOD = [(type, name, value) for type, name, good, _ in MEMBERS for value in [*good, None]]
BAD = [(type, name, value) for type, name, _, bad in MEMBERS for value in bad]


def pointers(type: E, msg: Any = "", **payload: Any) -> list[str]:
    return [fault.pointer for fault in faults(type, msg, payload)]


@pytest.mark.parametrize(("type", "name", "value"), GOOD)
def test_a_member_of_its_own_type_passes_and_null_counts_as_absent(type: E, name: str, value: Any):
    assert pointers(type, **{name: value}) == []


@pytest.mark.parametrize(("type", "name", "value"), BAD)
def test_a_member_of_another_type_is_pointed_at(type: E, name: str, value: Any):
    assert pointers(type, **{name: value}) == [f"/payload/{name}"]


def test_members_that_mean_nothing_here_are_welcome():
    assert pointers(E.INFO, reason=[], outputs=1, anything={}) == []


@pytest.mark.parametrize("msg", [0, 1, 100])
def test_progress_is_a_whole_number_from_0_to_100(msg: int):
    assert pointers(E.PROGRESS, msg) == []


@pytest.mark.parametrize("msg", [-1, 101, True, False, 1.0, 50.5, "50", None, [], {}])
def test_nothing_else_is_progress(msg: Any):
    assert pointers(E.PROGRESS, msg) == ["/msg"]


def test_every_fault_is_named_at_once():
    assert pointers(E.FAILED, "", exit_code="x", retryable=1, error_message=[]) == [
        "/payload/error_message",
        "/payload/exit_code",
        "/payload/retryable",
    ]


def test_a_malformed_event_is_refused_from_clients_and_workers_alike():
    with pytest.raises(Malformed, match="/msg: the msg of PROGRESS is a whole number from 0 to 100"):
        outside(unleased(), event(E.PROGRESS, 101), NOW)
    with pytest.raises(Malformed):
        reported(running(), 1, event(E.FAILED, reason="worker_lost"), NOW)


def test_what_an_event_says_is_judged_after_who_says_it_and_when():
    with pytest.raises(AttemptIsLeased):
        outside(assigned(), event(E.PROGRESS, "x"), NOW)
    with pytest.raises(OpRunLockedException):
        outside(cancel(running(), "", NOW), event(E.PROGRESS, "x"), NOW)
