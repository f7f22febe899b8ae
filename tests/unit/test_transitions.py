"""The table, every cell of it, against the contract."""

from itertools import product

import pytest

from gyoza.models.errors import OpRunLockedException, TransitionRefused
from gyoza.models.lifecycle import TERMINAL, TRANSITIONS, next_state

from .builders import CONTRACT, E, S

CELLS = list(product(S, E, [False, True]))


def test_the_table_is_the_contract_s():
    assert {(S(state), E(event)): S(after) for (state, event), (after, _) in CONTRACT.items()} == TRANSITIONS


@pytest.mark.parametrize(("state", "event", "by_server"), CELLS)
def test_every_cell_is_allowed_or_refused_as_the_contract_says(state: S, event: E, by_server: bool):
    after, server_alone = CONTRACT.get((state, event), (None, False))
    if after is not None and (by_server or not server_alone):
        assert next_state(state, event, by_server=by_server) is S(after)
        return
    refusal = OpRunLockedException if state in {"COMPLETED", "FAILED", "CANCELLED"} else TransitionRefused
    with pytest.raises(refusal) as refused:
        next_state(state, event, by_server=by_server)
    assert refused.type is refusal
    assert state in refused.value.detail and event in refused.value.detail


def test_three_states_are_terminal():
    assert {"COMPLETED", "FAILED", "CANCELLED"} == TERMINAL == {state for state in S if state.is_terminal}


def test_only_a_retry_leaves_a_terminal_state_and_nothing_leaves_completed():
    ways_out = {(state, event) for state, event in TRANSITIONS if state.is_terminal}
    assert ways_out == {(S.FAILED, E.RETRIED), (S.CANCELLED, E.RETRIED)}


def test_every_state_is_reached_from_pending():
    reached = {S.PENDING}
    for _ in S:
        reached |= {after for (state, _), after in TRANSITIONS.items() if state in reached}
    assert reached == set(S)


def test_a_refusal_says_what_is_allowed_instead():
    with pytest.raises(TransitionRefused, match="PROGRESS is refused while the run is PENDING") as refused:
        next_state(S.PENDING, E.PROGRESS)
    assert refused.value.detail.endswith("allowed now CANCELLED, ERROR, INFO, STARTED")


def test_a_completed_run_points_to_a_new_run_and_a_failed_one_to_a_retry():
    with pytest.raises(OpRunLockedException, match="submit it as a new run"):
        next_state(S.COMPLETED, E.RETRIED)
    with pytest.raises(OpRunLockedException, match="retry the run"):
        next_state(S.FAILED, E.PROGRESS)
