"""A worker says that it lives and what it holds; it hears what it must stop, and whether it is to drain."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gyoza.control.change import Change, change_all
from gyoza.models.errors import Superseded, WorkerNameTaken
from gyoza.models.reasons import Reason
from gyoza.policy.life import Life, acknowledge, note, settle, take_back
from gyoza.policy.liveness import Liveness, Pace, liveness
from gyoza.store import attempts, bell, workers
from gyoza.store.attempts import Held
from gyoza.store.database import Connection, Database
from gyoza.store.workers import Beat, Registration, Worker

REMEMBERED = 20
"""How many instances that were taken over are remembered, so that they hear that they are superseded."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

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
        beat = await workers.beat(connection, said, now) or await _register(connection, said, pace, now)
        held = await attempts.held_by(connection, said.worker_id)
        changes = compare(held, holding, beat.before)
        if beat.awaited:
            changes += [
                Change(each.run_id, partial(_back, said.worker_id, each)) for each in held if each.name in holding
            ]
        await change_all(connection, changes, now)
        return Heard(beat.drain, [*stops(held, holding), *_unknown(held, holding)])

    return await database.transact(work)


def compare(held: Sequence[Held], holding: Names, before: datetime | None) -> list[Change]:
    """What follows from what a worker holds by its own word, against what the server believes it holds.

    Held and not acknowledged yet: acknowledged now. Acknowledged before the last heartbeat, or over and never
    acknowledged, and not held: nothing of it runs, and if it was not over it is lost. What was acknowledged since the
    last heartbeat may have been taken up after this one was written, and is left for the next.
    """
    changes: list[Change] = []
    for each in held:
        holds = each.name in holding
        if holds and each.acknowledged_at is None:
            changes.append(Change(each.run_id, partial(_acknowledged, each.attempt)))
        if not holds and _is_gone(each, before):
            changes.append(Change(each.run_id, partial(_gone, each.attempt)))
    return changes


def _is_gone(held: Held, before: datetime | None) -> bool:
    if held.acknowledged_at is None:
        return not held.live
    return before is None or held.acknowledged_at <= before


def _acknowledged(attempt: int, life: Life, now: datetime) -> Life:
    return acknowledge(life, attempt, now)


def _gone(attempt: int, life: Life, now: datetime) -> Life:
    life = take_back(life, attempt, Reason.WORKER_LOST, "The worker no longer has it", now)
    return settle(life, attempt, now)


def _back(worker_id: str, held: Held, life: Life, now: datetime) -> Life:
    return note(life, held.attempt, f"Worker {worker_id} is back, and goes on with it", now)


def stops(held: Sequence[Held], having: Names) -> list[Stop]:
    """What the worker has that is over, or that went on elsewhere."""
    return [
        Stop(each.run_id, each.attempt, each.reason or Reason.RELEASED)
        for each in held
        if not each.live and each.name in having
    ]


def _unknown(held: Sequence[Held], holding: Names) -> list[Stop]:
    """What the worker works on and nobody waits for: it is settled here, or deleted with its run."""
    unknown = holding - {each.name for each in held}
    return [Stop(run_id, attempt, Reason.RELEASED) for run_id, attempt in sorted(unknown)]


async def _register(connection: Connection, said: Registration, pace: Pace, now: datetime) -> Beat:
    known = await workers.lock(connection, said.worker_id)
    if known is not None and _is_repeated(known, said):
        return Beat(known.drain, _LONG_AGO)
    former = _former(known, said, pace, now) if known else ()
    await workers.register(connection, said, former, now)
    await bell.ring(connection, [bell.QUEUE, said.worker_id])
    if known is None or known.forgotten:
        return Beat(drain=False, before=None)
    return Beat(known.drain, None, awaited=known.evicted_at is not None)


def _is_repeated(known: Worker, said: Registration) -> bool:
    """An older message of the same instance, that a newer one overtook: what it says it holds is out of date."""
    is_older = known.evicted_at is None or said.seq <= known.registration.seq
    return known.registration.instance == said.instance and not known.forgotten and is_older


def _former(known: Worker, said: Registration, pace: Pace, now: datetime) -> Sequence[str]:
    """The instances that this one takes over from; raises where it must not."""
    if said.instance in known.former:
        raise Superseded(said.worker_id)
    if known.registration.instance == said.instance:
        return known.former
    lives = known.evicted_at is None and liveness(known.seen_at, now, pace) is not Liveness.LOST
    if lives and known.registration.host_id != said.host_id:
        raise WorkerNameTaken(said.worker_id)
    return (*known.former, known.registration.instance)[-REMEMBERED:]
