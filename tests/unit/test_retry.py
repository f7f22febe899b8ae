"""Reasons, what each costs, and whether another attempt follows."""

from datetime import timedelta
from itertools import product

import pytest

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
