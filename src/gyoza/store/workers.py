"""Workers: who they are, what they have, when they were last seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from gyoza.models.resources import Constraints, Free, Resources
from gyoza.policy.placement import WorkerRoom
from gyoza.store.database import Connection


@dataclass(frozen=True)
class Registration:
    """What a worker says of itself, with every heartbeat. `instance` is random per process, `host_id` per host."""

    worker_id: str
    instance: str
    seq: int
    host_id: str
    resources: Resources
    tags: Sequence[str] = ()
    engines: Sequence[str] = ()
    version: str | None = None
    images: Sequence[str] = ()


@dataclass(frozen=True)
class Worker:
    registration: Registration
    former: Sequence[str]
    drain: bool
    registered_at: datetime
    seen_at: datetime
    evicted_at: datetime | None
    forgotten: bool


_COLUMNS = (
    "id, instance, seq, host_id, resources, tags, engines, version, images, former, drain, registered_at, seen_at, "
    "evicted_at, forgotten"
)


@dataclass(frozen=True)
class Beat:
    """`before`: when the heartbeat before this one was heard; None when this one registered the worker.

    `awaited`: it comes back after its lease was over.
    """

    drain: bool
    before: datetime | None
    awaited: bool = False


async def beat(connection: Connection, said: Registration, now: datetime) -> Beat | None:
    """None when this is not the living, registered instance, or an old message."""
    cursor = await connection.execute(
        """
        UPDATE workers SET seq = %(seq)s, resources = %(resources)s, tags = %(tags)s, engines = %(engines)s,
            version = %(version)s, images = %(images)s, seen_at = %(now)s
        FROM (SELECT id, seen_at FROM workers WHERE id = %(id)s FOR NO KEY UPDATE) AS was
        WHERE workers.id = was.id AND instance = %(instance)s AND evicted_at IS NULL AND NOT forgotten
            AND seq < %(seq)s
        RETURNING drain, was.seen_at
        """,
        _values(said, now),
    )
    row = await cursor.fetchone()
    return None if row is None else Beat(*row)


async def lock(connection: Connection, worker_id: str) -> Worker | None:
    """Also when it was evicted or forgotten, since its attempts may still be held."""
    query = "SELECT " + _COLUMNS + " FROM workers WHERE id = %s FOR NO KEY UPDATE"
    cursor = await connection.execute(query, [worker_id])
    row = await cursor.fetchone()
    return None if row is None else _worker(row)


async def register(connection: Connection, said: Registration, former: Sequence[str], now: datetime) -> None:
    """This instance is the worker from now on; `former` are those that it took over from."""
    await connection.execute(
        """
        INSERT INTO workers (
            id, instance, former, host_id, seq, resources, tags, engines, version, images, registered_at, seen_at)
        VALUES (%(id)s, %(instance)s, %(former)s, %(host_id)s, %(seq)s, %(resources)s, %(tags)s, %(engines)s,
            %(version)s, %(images)s, %(now)s, %(now)s)
        ON CONFLICT (id) DO UPDATE SET
            instance = excluded.instance, former = excluded.former, host_id = excluded.host_id, seq = excluded.seq,
            resources = excluded.resources, tags = excluded.tags, engines = excluded.engines,
            version = excluded.version, images = excluded.images, seen_at = excluded.seen_at,
            registered_at = excluded.registered_at, evicted_at = NULL, awaited_until = NULL, forgotten = false,
            drain = workers.drain AND NOT workers.forgotten
        """,
        {**_values(said, now), "former": list(former)},
    )


async def get(connection: Connection, worker_id: str) -> Worker | None:
    cursor = await connection.execute(
        "SELECT " + _COLUMNS + " FROM workers WHERE id = %s AND NOT forgotten", [worker_id]
    )
    row = await cursor.fetchone()
    return None if row is None else _worker(row)


async def every(connection: Connection) -> list[Worker]:
    cursor = await connection.execute("SELECT " + _COLUMNS + " FROM workers WHERE NOT forgotten ORDER BY id")
    return [_worker(row) for row in await cursor.fetchall()]


async def silent(connection: Connection, since: datetime, now: datetime) -> list[str]:
    """Those that were not heard since then and are not evicted yet, and those that were waited for until now."""
    cursor = await connection.execute(
        """
        SELECT id FROM workers WHERE evicted_at IS NULL AND seen_at < %s
        UNION ALL
        SELECT id FROM workers WHERE evicted_at IS NOT NULL AND awaited_until <= %s ORDER BY id
        """,
        [since, now],
    )
    return [row[0] for row in await cursor.fetchall()]


async def evict(connection: Connection, worker_id: str, now: datetime, awaited_until: datetime | None) -> None:
    await connection.execute(
        "UPDATE workers SET evicted_at = coalesce(evicted_at, %s), awaited_until = %s WHERE id = %s",
        [now, awaited_until, worker_id],
    )


async def set_drain(connection: Connection, worker_id: str, drain: bool) -> None:
    await connection.execute("UPDATE workers SET drain = %s WHERE id = %s", [drain, worker_id])


async def forget(connection: Connection, worker_id: str, now: datetime) -> None:
    """Out of every list; the row stays, since the history of attempts refers to it."""
    await connection.execute(
        "UPDATE workers SET forgotten = true, evicted_at = coalesce(evicted_at, %s), awaited_until = NULL WHERE id = %s",
        [now, worker_id],
    )


async def taken(
    connection: Connection, worker_id: str | None = None
) -> dict[str, list[tuple[Constraints, tuple[int, ...]]]]:
    """What the unsettled attempts of each worker (or of one) declare, and on which GPUs."""
    cursor = await connection.execute(
        """
        SELECT held_by, cpu_m, ram_mb, vram_mb, gpu_ids FROM attempts
        WHERE held_by IS NOT NULL AND settled_at IS NULL AND (%s::text IS NULL OR held_by = %s)
        """,
        [worker_id, worker_id],
    )
    found: dict[str, list[tuple[Constraints, tuple[int, ...]]]] = {}
    async for holder, cpu_m, ram_mb, vram_mb, gpu_ids in cursor:
        found.setdefault(holder, []).append((Constraints(cpu_m, ram_mb, vram_mb), tuple(gpu_ids)))
    return found


async def rooms(connection: Connection) -> list[WorkerRoom]:
    """What each living worker that takes work can still take: derived from live rows, never counted apart."""
    used = await taken(connection)
    cursor = await connection.execute(
        "SELECT id, resources, engines FROM workers WHERE evicted_at IS NULL AND NOT drain ORDER BY id"
    )
    return [
        WorkerRoom(worker_id, left(resources_of(raw), used.get(worker_id, ())), frozenset(engines))
        for worker_id, raw, engines in await cursor.fetchall()
    ]


def left(resources: Resources, used: Sequence[tuple[Constraints, tuple[int, ...]]]) -> Free:
    free = resources.free
    for constraints, gpu_ids in used:
        free = free.minus(constraints.counted, gpu_ids)
    return free


def resources_of(raw: msgspec.Raw) -> Resources:
    return Resources.from_dict(msgspec.json.decode(raw))


def _values(said: Registration, now: datetime) -> dict[str, Any]:
    return {
        "id": said.worker_id,
        "instance": said.instance,
        "seq": said.seq,
        "host_id": said.host_id,
        "resources": msgspec.json.encode(said.resources.to_dict()).decode(),
        "tags": list(said.tags),
        "engines": list(said.engines),
        "version": said.version,
        "images": list(said.images),
        "now": now,
    }


def _worker(row: Sequence[Any]) -> Worker:
    worker_id, instance, seq, host_id, resources, tags, engines, version, images = row[:9]
    former, drain, registered_at, seen_at, evicted_at, forgotten = row[9:]
    said = Registration(worker_id, instance, seq, host_id, resources_of(resources), tags, engines, version, images)
    return Worker(said, former, drain, registered_at, seen_at, evicted_at, forgotten)
