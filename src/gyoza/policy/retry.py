"""Whether an attempt that ended is followed by another one, when, and what its ending costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from gyoza.models.definition import RetryPolicy
from gyoza.models.reasons import INFRA_LOSS_LIMIT, RULES, Budget, Reason

LONGEST_PAUSE_S = 7 * 86400.0
"""Where `max_backoff_s` says nothing: a pause that doubles must end somewhere, if it does not begin beyond."""


@dataclass(frozen=True)
class Budgets:
    """What a run has spent so far, counted apart; neither is compared with the number of its attempts."""

    user_failures: int = 0
    infra_losses: int = 0

    def spent_on(self, reason: Reason) -> "Budgets":
        spends = RULES[reason].spends
        return Budgets(
            self.user_failures + (spends is Budget.USER),
            self.infra_losses + (spends is Budget.INFRA),
        )


def again(
    reason: Reason, spent: Budgets, policy: RetryPolicy, *, retryable: bool | None = None, chance: float = 0
) -> timedelta | None:
    """How long to pause before the next attempt; None: there is none.

    `spent` includes this ending; `retryable` is what the op itself said, if it said anything; `chance`, 0 to 1, is for
    the jitter. What costs nothing (a release, a drain) waits for nothing, and goes back whatever the policy says.
    """
    if not _is_retried(reason, policy) or retryable is False:
        return None
    failures, limit = _counted(spent, policy)[RULES[reason].spends]
    return _pause(failures, policy, chance) if failures < limit else None


def _is_retried(reason: Reason, policy: RetryPolicy) -> bool:
    rule = RULES[reason]
    if rule.spends is Budget.NONE:
        return rule.retried
    if reason in policy.fail_on:
        return False
    if rule.spends is Budget.USER and policy.retry_on is not None:
        return reason in policy.retry_on
    return rule.retried


def _counted(spent: Budgets, policy: RetryPolicy) -> Mapping[Budget, tuple[int, int]]:
    """How many failures of each budget there were, and how many end the run."""
    return {
        Budget.USER: (spent.user_failures, policy.max_attempts),
        Budget.INFRA: (spent.infra_losses, INFRA_LOSS_LIMIT),
        Budget.NONE: (0, 1),
    }


def _pause(failures: int, policy: RetryPolicy, chance: float) -> timedelta:
    if not failures or not policy.backoff_s:
        return timedelta(0)
    longest = max(LONGEST_PAUSE_S, policy.backoff_s) if policy.max_backoff_s is None else policy.max_backoff_s
    pause_s = policy.backoff_s
    for _ in range(failures - 1):
        pause_s = min(pause_s * policy.backoff_factor, longest)
    return timedelta(seconds=min(pause_s, longest) * (1 - policy.jitter * chance))
