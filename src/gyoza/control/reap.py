"""Ending what is lost: workers that fell silent, and runs beyond their deadline. The leader alone does it.

A silent worker is evicted when its lease is over: it gets nothing more. What it holds goes back to the queue then, or,
where the definition has more patience, later: `workers.awaited_until` is when the next of it is given up. If the worker
comes back before that, and still holds it, it goes on under the lease that it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gyoza.control.change import Change, change_all
from gyoza.models.reasons import Reason
from gyoza.models.run import time_to_wire
from gyoza.policy.life import Life, expire, is_live, note, take_back
from gyoza.policy.liveness import Liveness, Pace, liveness, lost_at
from gyoza.store import attempts, bell, leader, workers
from gyoza.store.attempts import Held
from gyoza.store.database import Connection, Database
from gyoza.store.workers import Worker

AT_ONCE = 1000
"""How many runs one transaction ends: a crowd of them must not hold up everybody else."""


async def reap(database: Database, epoch: int, pace: Pace, now: datetime) -> dict[str, int]:
    """How many workers were evicted or waited for in vain, and how many runs ended by their deadline."""
    async with database.connection() as connection:
        silent = await workers.silent(connection, now - timedelta(seconds=pace.lease_s), now)
    evicted = [await evict(database, epoch, worker_id, pace, now) for worker_id in silent]
    return {"evicted": sum(evicted), "expired": await _expire(database, epoch, now)}


async def evict(database: Database, epoch: int, worker_id: str, pace: Pace, now: datetime) -> bool:
    """The lease of a silent worker is over: what nobody waits for any longer is lost and goes back to the queue."""

    async def work(connection: Connection) -> bool:
        await leader.check(connection, epoch)
        worker = await workers.lock(connection, worker_id)
        if worker is None or liveness(worker.seen_at, now, pace) is not Liveness.LOST:
            return False
        patience = await attempts.patience(connection, worker_id)
        limits = {name: lost_at(worker.seen_at, pace, seconds) for name, seconds in patience.items()}
        awaited = {name: limit for name, limit in limits.items() if limit > now}
        lost = [each for each in await attempts.held_by(connection, worker_id) if each.name not in awaited]
        notes = [] if worker.evicted_at else [_awaiting(name, worker, limit) for name, limit in awaited.items()]
        await let_go(connection, worker_id, lost, Reason.WORKER_LOST, f"Worker {worker_id} was lost", now, notes)
        await workers.evict(connection, worker_id, now, min(awaited.values(), default=None))
        return True

    return await database.transact(work)


async def let_go(
    connection: Connection,
    worker_id: str,
    held: Sequence[Held],
    reason: Reason,
    msg: str,
    now: datetime,
    also: Sequence[Change] = (),
) -> None:
    """End those of these attempts that are not over; whoever follows their logs looks whether more will come."""
    await change_all(connection, [*(_taking(each.run_id, each.attempt, reason, msg) for each in held), *also], now)
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


def _awaiting(name: tuple[str, int], worker: Worker, limit: datetime) -> Change:
    run_id, attempt = name
    said, since, until = worker.registration, time_to_wire(worker.seen_at), time_to_wire(limit)
    msg = f"Worker {said.worker_id} is silent since {since}; waiting for it until {until}"
    return Change(run_id, lambda life, now: note(life, attempt, msg, now))


def _taking(run_id: str, attempt: int, reason: Reason, msg: str) -> Change:
    def judge(life: Life, now: datetime) -> Life:
        return take_back(life, attempt, reason, msg, now)

    return Change(run_id, judge)
