"""One round of placing: look at the queue and the rooms, decide, assign, wake the workers. The leader alone does it."""

import secrets
from datetime import datetime

from gyoza.control.change import Change, change_all
from gyoza.models.lifecycle import OpRunState
from gyoza.policy import placement
from gyoza.policy.life import Assignment, Life, assign
from gyoza.policy.placement import Placement
from gyoza.store import leader, queue, workers
from gyoza.store.database import Connection, Database


async def place(database: Database, epoch: int, now: datetime) -> int:
    """How many runs were assigned; raises Deposed when another server leads.

    Letting in what is due is true whoever does it. It has a transaction of its own, since it locks runs as they are
    due and assigning locks them by their ids.
    """

    async with database.connection() as connection:
        await queue.admit(connection, now)

    async def work(connection: Connection) -> int:
        await leader.check(connection, epoch)
        pending = await queue.window(connection)
        if not pending:
            return 0
        plan = placement.place(pending, await workers.rooms(connection, now), now)
        await change_all(connection, [Change(placed.run_id, _Assigning(placed)) for placed in plan.placements], now)
        return len(plan.placements)

    return await database.transact(work)


class _Assigning:
    """A run that changed since the round looked at it (cancelled, started from outside) is left as it is."""

    def __init__(self, placed: Placement):
        self._placed = placed

    def __call__(self, life: Life, now: datetime) -> Life:
        placed = self._placed
        if life.current != placed.attempt or life.state is not OpRunState.PENDING:
            return life
        return assign(life, Assignment(placed.worker_id, secrets.token_urlsafe(18), placed.gpu_ids), now)
