"""Retrying by hand: a new attempt, beyond the budgets."""

from datetime import datetime

from gyoza.control.change import Change, change_one
from gyoza.models.lifecycle import EventType
from gyoza.policy.life import Happening, Life, happen
from gyoza.store.database import Database

_BY_HAND = Happening(EventType.RETRIED, "Manual retry", {"force": True})


async def retry(database: Database, run_id: str, now: datetime) -> Life:
    return await change_one(database, Change(run_id, retried), now)


def retried(life: Life, now: datetime) -> Life:
    return happen(life, _BY_HAND, now)
