"""Letting go of what was kept long enough: runs, with all that belongs to them, and answers under idempotency keys.

The leader alone does it, in batches so small that nobody who locks a run waits for them. Its leadership is not held
on to meanwhile: another leader that begins to tidy, too, takes other runs.
"""

from datetime import datetime, timedelta

from gyoza.control.logs import Shelf, discard
from gyoza.store import idempotency, leader, logs, retention
from gyoza.store.database import Connection, Database

RUNS_AT_ONCE = 100
EVENTS_AT_ONCE = 10_000
ANSWERS_AT_ONCE = 1000


async def tidy(
    database: Database,
    epoch: int,
    keep_for: timedelta | None,
    shelf: Shelf,
    now: datetime,
) -> dict[str, int]:
    """One batch; how much went. `keep_for` None: for ever.

    The bytes of logs go after the rows, by a list that is written with the rows' deletion: no run that stays, for
    whatever reason, has lost its log, and no bytes are forgotten.
    """

    async def work(connection: Connection) -> dict[str, int]:
        await leader.check_now(connection, epoch)
        ended_before = None if keep_for is None else now - keep_for
        due = await retention.lock_due(connection, ended_before, now, RUNS_AT_ONCE, EVENTS_AT_ONCE)
        await logs.forget(connection, due, now)
        await retention.delete(connection, due)
        return {"runs": len(due), "answers": await idempotency.expire(connection, now, ANSWERS_AT_ONCE)}

    return {**await database.transact(work), "logs": await discard(database, shelf, now)}
