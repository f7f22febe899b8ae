"""A worker says that it lives and what it holds; it hears what it must stop, and whether it is to drain."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gyoza.control.change import Change, change_all
from gyoza.models.errors import Superseded, WorkerNameTaken
from gyoza.models.reasons import Reason
from gyoza.policy.life import Life, acknowledge, settle, take_back
from gyoza.policy.liveness import Pace
from gyoza.store import attempts, bell, workers
from gyoza.store.attempts import Held
from gyoza.store.database import Connection, Database
from gyoza.store.workers import Registration, Worker

REMEMBERED = 20
"""How many instances that were taken over are remembered, so that they hear that they are superseded."""

Names = frozenset[tuple[str, int]]
"""Attempts by (run id, attempt)."""


@dataclass(frozen=True)
class Stop:
    run_id: str
    attempt: int
    reason: Reason

    def to_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "attempt": self.attempt, "reason": self.reason}


@dataclass(frozen=True)
class Heard:
    drain: bool
    stop: Sequence[Stop]


async def heartbeat(database: Database, said: Registration, holding: Names, pace: Pace, now: datetime) -> Heard:
    """Registers the worker where it is not yet. Raises WorkerNameTaken or Superseded."""

    async def work(connection: Connection) -> Heard:
        drain = await workers.beat(connection, said, now)
        if drain is None:
            drain = await _register(connection, said, pace, now)
        held = await attempts.held_by(connection, said.worker_id)
        await change_all(connection, compare(held, holding), now)
        return Heard(drain, stops(held, holding))

    return await database.transact(work)


def compare(held: Sequence[Held], holding: Names) -> list[Change]:
    """What follows from what a worker holds by its own word, against what the server believes it holds.

    Held and not acknowledged yet: acknowledged now. Acknowledged once, or over, and held no more: nothing of it runs,
    and if it was not over it is lost.
    """
    changes: list[Change] = []
    for each in held:
        holds = (each.run_id, each.attempt) in holding
        if holds and not each.acknowledged:
            changes.append(Change(each.run_id, lambda life, now, n=each.attempt: acknowledge(life, n, now)))
        if not holds and (each.acknowledged or not each.live):
            changes.append(Change(each.run_id, lambda life, now, n=each.attempt: gone(life, n, now)))
    return changes


def gone(life: Life, attempt: int, now: datetime) -> Life:
    life = take_back(life, attempt, Reason.WORKER_LOST, "The worker no longer has it", now)
    return settle(life, attempt, now)


def stops(held: Sequence[Held], having: Names) -> list[Stop]:
    """What the worker has that is over, or that went on elsewhere."""
    return [
        Stop(each.run_id, each.attempt, each.reason or Reason.RELEASED)
        for each in held
        if not each.live and (each.run_id, each.attempt) in having
    ]


async def _register(connection: Connection, said: Registration, pace: Pace, now: datetime) -> bool:
    known = await workers.lock(connection, said.worker_id)
    if known is not None and _is_repeated(known, said):
        return known.drain
    former = _former(known, said, pace, now) if known else ()
    await workers.register(connection, said, former, now)
    await bell.ring(connection, [bell.QUEUE])
    return known.drain if known else False


def _is_repeated(known: Worker, said: Registration) -> bool:
    """An older message of the living instance, that a newer one overtook."""
    return known.registration.instance == said.instance and known.evicted_at is None and not known.forgotten


def _former(known: Worker, said: Registration, pace: Pace, now: datetime) -> Sequence[str]:
    """The instances that this one takes over from; raises where it must not."""
    if said.instance in known.former:
        raise Superseded(said.worker_id)
    if known.registration.instance == said.instance:
        return known.former
    lives = known.evicted_at is None and now - known.seen_at <= timedelta(seconds=pace.lease_s)
    if lives and known.registration.host_id != said.host_id:
        raise WorkerNameTaken(said.worker_id)
    return (*known.former, known.registration.instance)[-REMEMBERED:]
