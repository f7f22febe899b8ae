"""Reasons, what each costs, whether another attempt follows, and after how long."""

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models.definition import RetryPolicy
from gyoza.models.reasons import INFRA_LOSS_LIMIT, RULES, Budget, Reason
from gyoza.policy.retry import Budgets, again

from .builders import REASONS

RETRIED = [reason for reason, (_, retried) in REASONS.items() if retried]
FINAL = [reason for reason, (_, retried) in REASONS.items() if not retried]
LIMIT = 3
POLICY = RetryPolicy(LIMIT)
AT_ONCE = timedelta(0)


def spent(budget: str, count: int) -> Budgets:
    return Budgets(count if budget == "user" else 0, count if budget == "infra" else 0)


def test_the_reasons_are_the_contract_s():
    assert {reason.value: (rule.spends.value, rule.retried) for reason, rule in RULES.items()} == REASONS
    assert set(RULES) == set(Reason)


def test_what_the_machines_did_is_tried_elsewhere_first_and_what_the_op_did_is_not():
    assert {reason for reason, rule in RULES.items() if rule.elsewhere} == {
        reason for reason, rule in RULES.items() if rule.retried and rule.spends is not Budget.USER
    }


@pytest.mark.parametrize("reason", REASONS)
def test_an_ending_spends_its_own_budget_and_no_other(reason: str):
    budget, _ = REASONS[reason]
    assert Budgets(10, 20).spent_on(Reason(reason)) == Budgets(10 + (budget == "user"), 20 + (budget == "infra"))


@pytest.mark.parametrize(("reason", "count"), list(product(RETRIED, range(8))))
def test_a_retried_reason_is_retried_while_its_budget_lasts(reason: str, count: int):
    budget, _ = REASONS[reason]
    limit = {"user": LIMIT, "infra": 5, "none": 99}[budget]
    assert again(Reason(reason), spent(budget, count), POLICY) == (AT_ONCE if count < limit else None)


@pytest.mark.parametrize("reason", RETRIED)
def test_the_other_budget_does_not_matter(reason: str):
    other = "infra" if REASONS[reason][0] == "user" else "user"
    assert again(Reason(reason), spent(other, 99), POLICY) == AT_ONCE


@pytest.mark.parametrize(("reason", "retryable"), list(product(FINAL, [None, True, False])))
def test_a_final_reason_is_never_retried(reason: str, retryable: bool | None):
    assert again(Reason(reason), Budgets(), POLICY, retryable=retryable) is None


def test_an_op_that_says_not_retryable_is_believed():
    assert again(Reason.OP_ERROR, Budgets(1), POLICY, retryable=False) is None
    assert again(Reason.OP_ERROR, Budgets(1), POLICY, retryable=True) == AT_ONCE


def test_one_attempt_is_the_whole_budget_of_a_run_that_asks_for_no_more():
    assert again(Reason.OP_ERROR, Budgets().spent_on(Reason.OP_ERROR), RetryPolicy()) is None


def test_the_infrastructure_may_lose_a_run_five_times():
    assert INFRA_LOSS_LIMIT == 5


FREE = [reason for reason, (budget, retried) in REASONS.items() if budget == "none" and retried]
COSTLY = [reason for reason, (budget, _) in REASONS.items() if budget != "none"]


def test_what_costs_nothing_is_what_the_machines_do_with_a_run():
    assert set(FREE) == {"released", "declined", "drained", "preempted"}


some_reasons = st.lists(st.sampled_from(sorted(REASONS)), max_size=6)


@given(
    reason=st.sampled_from(sorted(REASONS)),
    retry_on=st.none() | some_reasons,
    fail_on=some_reasons,
    retryable=st.sampled_from([None, True, False]),
    user=st.integers(0, 6),
    infra=st.integers(0, 6),
    backoff_s=st.sampled_from([0, 30]),
)
def test_what_is_retried(
    reason: str, retry_on: Any, fail_on: Any, retryable: bool | None, user: int, infra: int, backoff_s: float
):
    """The rule in its own words. A reason that costs nothing cannot be ruled out by naming it."""
    budget, by_default = REASONS[reason]
    wanted = by_default if budget != "user" or retry_on is None else reason in retry_on
    allowed = budget == "none" or reason not in fail_on
    left = {"user": user < LIMIT, "infra": infra < 5, "none": True}[budget]
    policy = RetryPolicy(LIMIT, backoff_s, retry_on=retry_on, fail_on=fail_on)
    pause = again(Reason(reason), Budgets(user, infra), policy, retryable=retryable)
    assert (pause is not None) == (wanted and allowed and left and retryable is not False)


@pytest.mark.parametrize(
    ("policy", "pauses_s"),
    [
        (RetryPolicy(9), [0, 0, 0]),
        (RetryPolicy(9, 10), [10, 20, 40, 80, 160]),
        (RetryPolicy(9, 10, backoff_factor=1), [10, 10, 10]),
        (RetryPolicy(9, 0.5, 3), [0.5, 1.5, 4.5, 13.5]),
        (RetryPolicy(9, 10, max_backoff_s=35), [10, 20, 35, 35]),
        (RetryPolicy(9, 10, max_backoff_s=4), [4, 4]),
        (RetryPolicy(9, 10, max_backoff_s=0), [0, 0]),
        (RetryPolicy(9, 86400, 100), [86400, 7 * 86400, 7 * 86400]),
        (RetryPolicy(9, 20 * 86400), [20 * 86400, 20 * 86400]),
    ],
    ids=["none", "doubled", "even", "tripled", "capped", "capped at once", "capped to nothing", "a week", "longer"],
)
def test_the_pause_grows_by_its_factor_up_to_its_cap(policy: RetryPolicy, pauses_s: list[float]):
    for number, pause_s in enumerate(pauses_s, start=1):
        assert again(Reason.OP_ERROR, Budgets(number), policy) == timedelta(seconds=pause_s)


def test_losses_to_the_infrastructure_pause_by_their_own_number():
    policy = RetryPolicy(9, 10)
    assert again(Reason.WORKER_LOST, Budgets(7, 3), policy) == timedelta(seconds=40)
    assert again(Reason.OP_ERROR, Budgets(2, 4), policy) == timedelta(seconds=20)


@pytest.mark.parametrize("reason", FREE)
def test_what_costs_nothing_pauses_for_nothing(reason: str):
    assert again(Reason(reason), Budgets(3, 3), RetryPolicy(9, 60, jitter=1)) == AT_ONCE


finite = st.floats(0, 30 * 86400)


@given(
    failures=st.integers(1, 999),
    backoff_s=finite,
    factor=st.floats(1, 100),
    cap_s=st.none() | finite,
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_jitter_shortens_a_pause_by_its_part_at_most(
    failures: int, backoff_s: float, factor: float, cap_s: float | None, jitter: float, chance: float
):
    """Whatever the schema lets through: no number overflows, and no pause is below zero or beyond its cap."""

    def paused(jitter: float) -> float:
        policy = RetryPolicy(1000, backoff_s, factor, cap_s, jitter)
        pause = again(Reason.OP_ERROR, Budgets(failures), policy, chance=chance)
        assert pause is not None
        return pause.total_seconds()

    whole = paused(0)
    assert whole <= (max(7 * 86400, backoff_s) if cap_s is None else cap_s) + 1e-6
    assert whole * (1 - jitter) - 1e-5 <= paused(jitter) <= whole
