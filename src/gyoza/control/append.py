"""Events from outside: a program that executes runs by itself, or a person."""

from datetime import datetime

from gyoza.control.change import Change, change_one
from gyoza.policy.life import Happening, Life, outside
from gyoza.store.database import Database


async def append(
    database: Database, run_id: str, event: Happening, now: datetime, *, attempt: int | None = None
) -> Life:
    def judge(life: Life, at: datetime) -> Life:
        return outside(life, event, at, attempt=attempt)

    return await change_one(database, Change(run_id, judge), now)
