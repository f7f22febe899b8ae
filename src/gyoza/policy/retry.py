"""Whether an attempt that ended is followed by another one, and what its ending costs."""

from dataclasses import dataclass

from gyoza.models.reasons import INFRA_LOSS_LIMIT, RULES, Budget, Reason


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


def again(reason: Reason, spent: Budgets, max_attempts: int, *, retryable: bool | None = None) -> bool:
    """`spent` includes this ending; `retryable` is what the op itself said, if it said anything."""
    rule = RULES[reason]
    if not rule.retried or retryable is False:
        return False
    left = {
        Budget.USER: spent.user_failures < max_attempts,
        Budget.INFRA: spent.infra_losses < INFRA_LOSS_LIMIT,
        Budget.NONE: True,
    }
    return left[rule.spends]
