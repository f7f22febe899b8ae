"""Events from outside: a program that executes runs by itself, or a person."""

from datetime import datetime

from gyoza.control.change import Change, change_one
from gyoza.models.errors import TransitionRefused
from gyoza.models.lifecycle import EventType
from gyoza.policy.life import Happening, Life, outside
from gyoza.policy.retry import again
from gyoza.store.database import Database


async def append(
    database: Database, run_id: str, event: Happening, now: datetime, *, attempt: int | None = None
) -> Life:
    def judge(life: Life, at: datetime) -> Life:
        after = outside(life, event, at, attempt=attempt)
        if event.type is EventType.RETRIED and not event.says("force"):
            _check_budget(life)
        return after

    return await change_one(database, Change(run_id, judge), now)


def _check_budget(life: Life) -> None:
    reason = life.now_on.reason
    if reason is not None and not again(reason, life.budgets, life.max_attempts):
        raise TransitionRefused(
            f"RETRIED is refused: the run ended for reason '{reason}' and its attempts are used up "
            '(send payload {"force": true} to go beyond)'
        )
