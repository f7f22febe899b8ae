"""Looking after workers: listing, draining, resuming, removing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gyoza.control.reap import let_go
from gyoza.models.errors import WorkerNotFound
from gyoza.models.reasons import Reason
from gyoza.models.resources import Free, cpu_to_wire
from gyoza.models.run import time_to_wire
from gyoza.policy.liveness import Liveness, Pace, liveness
from gyoza.policy.quarantine import Quarantine
from gyoza.store import attempts, bell, leader, workers
from gyoza.store.attempts import Held
from gyoza.store.database import Connection, Database
from gyoza.store.workers import Worker


@dataclass(frozen=True)
class Staff:
    """A worker as it is shown: `room` is what it can still take, `holding` what it holds and is not settled."""

    worker: Worker
    state: Liveness
    room: Free
    holding: list[Held]

    def to_dict(self) -> dict[str, Any]:
        said = self.worker.registration
        room = {**vars(self.room), "cpu": cpu_to_wire(self.room.cpu_m), "vram_mb": dict(self.room.vram_mb)}
        del room["cpu_m"]
        return {
            "id": said.worker_id,
            "state": self.state,
            "drain": self.worker.drain,
            "quarantine": _shown(self.worker.quarantine),
            "host_id": said.host_id,
            "resources": said.resources.to_dict(),
            "room": room,
            "tags": list(said.tags),
            "engines": list(said.engines),
            "version": said.version,
            "images": list(said.images),
            "holding": [{"run_id": each.run_id, "attempt": each.attempt, "state": each.state} for each in self.holding],
            "registered_at": time_to_wire(self.worker.registered_at),
            "seen_at": time_to_wire(self.worker.seen_at),
        }


async def every(database: Database, pace: Pace, now: datetime) -> list[Staff]:
    async with database.connection() as connection:
        return [await _staff(connection, worker, pace, now) for worker in await workers.every(connection)]


async def one(database: Database, worker_id: str, pace: Pace, now: datetime) -> Staff:
    async with database.connection() as connection:
        return await _staff(connection, await _known(connection, worker_id), pace, now)


async def drain(database: Database, worker_id: str, now: datetime) -> None:
    """It takes nothing new; what it was handed but has not taken up goes back; what it runs goes on."""

    async def work(connection: Connection) -> None:
        await leader.hold_off(connection)
        await _known(connection, worker_id)
        await workers.drain(connection, worker_id)
        idle = [each for each in await attempts.held_by(connection, worker_id) if each.is_assigned]
        await let_go(connection, worker_id, idle, Reason.DRAINED, f"Worker {worker_id} is drained", now)

    await database.transact(work)


async def resume(database: Database, worker_id: str, now: datetime) -> None:
    """It is given work again, whether it was drained or in quarantine."""

    async def work(connection: Connection) -> None:
        await leader.hold_off(connection)
        await _known(connection, worker_id)
        await workers.resume(connection, worker_id, now)
        await bell.ring(connection, [bell.QUEUE, worker_id])

    await database.transact(work)


async def remove(database: Database, worker_id: str, now: datetime) -> None:
    """Its lease is over at once, as if it had fallen silent; if it still lives, it registers anew.

    What it never took up goes back at no cost: a worker that leaves in peace may have missed it by a moment.
    """

    async def work(connection: Connection) -> None:
        await leader.hold_off(connection)
        await _known(connection, worker_id)
        held = await attempts.held_by(connection, worker_id)
        unseen = [each for each in held if each.acknowledged_at is None]
        await let_go(connection, worker_id, unseen, Reason.RELEASED, f"Worker {worker_id} left before it began", now)
        await let_go(connection, worker_id, held, Reason.WORKER_LOST, f"Worker {worker_id} was removed", now)
        await workers.forget(connection, worker_id, now)

    await database.transact(work)


def _shown(quarantine: Quarantine | None) -> dict[str, Any] | None:
    if quarantine is None:
        return None
    since, until = time_to_wire(quarantine.since), time_to_wire(quarantine.until)
    how = {"cause": quarantine.cause, "reason": quarantine.reason, "canaries": quarantine.canaries}
    return {"since": since, "until": until, **how}


async def _known(connection: Connection, worker_id: str) -> Worker:
    worker = await workers.get(connection, worker_id)
    if worker is None:
        raise WorkerNotFound(worker_id)
    return worker


async def _staff(connection: Connection, worker: Worker, pace: Pace, now: datetime) -> Staff:
    said = worker.registration
    used = await workers.taken(connection, said.worker_id)
    state = Liveness.LOST if worker.evicted_at else liveness(worker.seen_at, now, pace)
    room = workers.left(said.resources, used.get(said.worker_id, ()))
    return Staff(worker, state, room, await attempts.held_by(connection, said.worker_id))
