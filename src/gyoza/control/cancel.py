"""Cancelling: the answer is CANCELLED at once; the worker is told to stop, and keeps the room until it has."""

from datetime import datetime

from gyoza.control.change import Change, change_one
from gyoza.models.errors import NotAllowedNow
from gyoza.policy import life as lives
from gyoza.policy.life import Life
from gyoza.store.database import Database


async def cancel(database: Database, run_id: str, now: datetime) -> Life:
    return await change_one(database, Change(run_id, cancelled), now)


def cancelled(life: Life, now: datetime) -> Life:
    if life.state.is_terminal:
        raise NotAllowedNow(f"Run is already in terminal state {life.state}")
    return lives.cancel(life, "Cancelled by user", now)
