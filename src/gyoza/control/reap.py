"""Ending what is lost: workers that fell silent, and runs beyond their deadline. The leader alone does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gyoza.control.change import Change, change_all
from gyoza.models.reasons import Reason
from gyoza.policy.life import Life, expire, is_live, take_back
from gyoza.policy.liveness import Liveness, Pace, liveness
from gyoza.store import attempts, bell, leader, workers
from gyoza.store.attempts import Held
from gyoza.store.database import Connection, Database

AT_ONCE = 1000
"""How many runs one transaction ends: a crowd of them must not hold up everybody else."""


async def reap(database: Database, epoch: int, pace: Pace, now: datetime) -> dict[str, int]:
    """How many workers were evicted, and how many runs ended by their deadline."""
    async with database.connection() as connection:
        silent = await workers.silent_since(connection, now - timedelta(seconds=pace.lease_s))
    evicted = [await evict(database, epoch, worker_id, pace, now) for worker_id in silent]
    return {"evicted": sum(evicted), "expired": await _expire(database, epoch, now)}


async def evict(database: Database, epoch: int, worker_id: str, pace: Pace, now: datetime) -> bool:
    """The lease of a silent worker is over: what it held is lost to the infrastructure and goes back to the queue."""

    async def work(connection: Connection) -> bool:
        await leader.check(connection, epoch)
        worker = await workers.lock(connection, worker_id)
        if worker is None or worker.evicted_at or liveness(worker.seen_at, now, pace) is not Liveness.LOST:
            return False
        held = await attempts.held_by(connection, worker_id)
        await let_go(connection, worker_id, held, Reason.WORKER_LOST, f"Worker {worker_id} was lost", now)
        await workers.evict(connection, worker_id, now)
        return True

    return await database.transact(work)


async def let_go(
    connection: Connection, worker_id: str, held: Sequence[Held], reason: Reason, msg: str, now: datetime
) -> None:
    """End those of these attempts that are not over; whoever follows their logs looks whether more will come."""
    await change_all(connection, [_taking(each.run_id, each.attempt, reason, msg) for each in held], now)
    await bell.ring(connection, [bell.QUEUE, worker_id, *(bell.log_of(each.run_id) for each in held)])


async def _expire(database: Database, epoch: int, now: datetime) -> int:
    async def work(connection: Connection) -> int:
        await leader.check(connection, epoch)
        late = await attempts.overdue(connection, now, AT_ONCE)
        outcomes, _ = await change_all(connection, [Change(run_id, _Expiring(n)) for run_id, n in late], now)
        return sum(isinstance(life, Life) and not is_live(life, n) for life, (_, n) in zip(outcomes, late, strict=True))

    return await database.transact(work)


@dataclass(frozen=True)
class _Expiring:
    attempt: int

    def __call__(self, life: Life, now: datetime) -> Life:
        return expire(life, self.attempt, now)


def _taking(run_id: str, attempt: int, reason: Reason, msg: str) -> Change:
    def judge(life: Life, now: datetime) -> Life:
        return take_back(life, attempt, reason, msg, now)

    return Change(run_id, judge)
