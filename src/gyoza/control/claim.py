"""A worker asks for its assignments. Claiming changes nothing and may be repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gyoza.control.heartbeat import Names, Stop, stops
from gyoza.models.errors import NotRegistered, Superseded
from gyoza.store import attempts, workers
from gyoza.store.attempts import Assigned
from gyoza.store.bell import Bell
from gyoza.store.database import Connection, Database
from gyoza.store.workers import Worker

LOOK_AGAIN_S = 5.0
"""The bell is a hint: without it, whoever waits looks this often."""


@dataclass(frozen=True)
class Claimed:
    assignments: Sequence[Assigned]
    stop: Sequence[Stop]
    drain: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "assignments": [assigned.to_dict() for assigned in self.assignments],
            "stop": [stop.to_dict() for stop in self.stop],
            "drain": self.drain,
        }


@dataclass(frozen=True)
class Claim:
    """`known`: what the worker has already and need not hear of again; `most`: how many assignments it takes."""

    worker_id: str
    instance: str
    known: Names
    most: int
    wait_s: float


async def claim(database: Database, bell: Bell, wanted: Claim) -> Claimed:
    """Answers at once when there is something to say, else when the bell rings, at last empty-handed."""
    until = monotonic() + wanted.wait_s
    rang = False
    with bell.heard(wanted.worker_id) as ear:
        while True:
            async with database.connection() as connection:
                claimed = await look(connection, wanted)
            left_s = until - monotonic()
            news = claimed.assignments or claimed.stop or (rang and claimed.drain)
            if news or left_s <= 0 or bell.is_closed:
                return claimed
            rang = await ear.wait(min(left_s, LOOK_AGAIN_S))


async def check_instance(database: Database, worker_id: str, instance: str) -> None:
    """Raises Superseded or NotRegistered unless this process is the worker."""
    async with database.connection() as connection:
        await _current(connection, worker_id, instance)


async def _current(connection: Connection, worker_id: str, instance: str) -> Worker:
    worker = await workers.get(connection, worker_id)
    if worker is not None and instance in worker.former:
        raise Superseded(worker_id)
    if worker is None or worker.evicted_at is not None or worker.registration.instance != instance:
        raise NotRegistered(worker_id)
    return worker


async def look(connection: Connection, wanted: Claim) -> Claimed:
    worker = await _current(connection, wanted.worker_id, wanted.instance)
    held = await attempts.held_by(connection, wanted.worker_id)
    fresh = [each for each in held if each.is_assigned and each.name not in wanted.known]
    assigned = await attempts.assigned(connection, fresh[: wanted.most])
    return Claimed(assigned, stops(held, wanted.known), worker.drain)
