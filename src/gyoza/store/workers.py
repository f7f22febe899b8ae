"""Workers: who they are, what they have, when they were last seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

import msgspec

from gyoza.models.resources import Constraints, Free, Resources
from gyoza.policy.placement import WorkerRoom
from gyoza.policy.quarantine import Cause, Quarantine
from gyoza.store import endings
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
    quarantine: Quarantine | None


Crew = Mapping[str, Sequence[str]]
"""The living workers that take work, with their engines."""

_QUARANTINE = "quarantined_at, quarantine_cause, quarantine_reason, canary_at, canaries"
_COLUMNS = (
    "id, instance, seq, host_id, resources, tags, engines, version, images, former, drain, registered_at, seen_at, "
    "evicted_at, forgotten, " + _QUARANTINE
)
_TRUSTED: LiteralString = """
    quarantined_at = NULL, quarantine_cause = NULL, quarantine_reason = NULL, canary_at = NULL, canaries = 0,
    trusted_at = %(now)s
"""


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


async def drain(connection: Connection, worker_id: str) -> None:
    await connection.execute("UPDATE workers SET drain = true WHERE id = %s", [worker_id])


async def resume(connection: Connection, worker_id: str, now: datetime) -> None:
    """Whoever says so trusts it."""
    values = {"id": worker_id, "now": now}
    await connection.execute("UPDATE workers SET drain = false, " + _TRUSTED + "WHERE id = %(id)s", values)


async def trust(connection: Connection, worker_id: str, now: datetime) -> None:
    """Its quarantine is over; what ended before does not count any more."""
    await connection.execute("UPDATE workers SET " + _TRUSTED + "WHERE id = %(id)s", {"id": worker_id, "now": now})


async def quarantine(connection: Connection, worker_id: str, how: Quarantine) -> None:
    await connection.execute(
        """
        UPDATE workers SET quarantined_at = %s, quarantine_cause = %s, quarantine_reason = %s, canary_at = %s,
            canaries = %s
        WHERE id = %s
        """,
        [how.since, how.cause, how.reason, how.until, how.canaries, worker_id],
    )


async def quarantined(connection: Connection) -> list[tuple[str, Sequence[str], Quarantine]]:
    """Those that live, with their engines."""
    cursor = await connection.execute(
        "SELECT id, engines, "
        + _QUARANTINE
        + " FROM workers WHERE quarantined_at IS NOT NULL AND evicted_at IS NULL AND NOT drain"
    )
    return [(worker_id, engines, _quarantine(row)) for worker_id, engines, *row in await cursor.fetchall()]


async def crew(connection: Connection) -> Crew:
    cursor = await connection.execute(
        "SELECT id, engines FROM workers WHERE evicted_at IS NULL AND NOT drain AND quarantined_at IS NULL"
    )
    return dict(await cursor.fetchall())


async def forget(connection: Connection, worker_id: str, now: datetime) -> None:
    """Out of every list; the row stays, since the history of attempts refers to it. If it comes back, it is trusted."""
    await connection.execute(
        "UPDATE workers SET forgotten = true, evicted_at = coalesce(evicted_at, %(now)s), awaited_until = NULL, "
        + _TRUSTED
        + "WHERE id = %(id)s",
        {"id": worker_id, "now": now},
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


async def rooms(connection: Connection, now: datetime) -> list[WorkerRoom]:
    """What each living worker that takes work can still take: derived from live rows, never counted apart.

    One in quarantine takes a single run, its canary, when the time for it has come and no other one is under way or
    has ended without having been judged.
    """
    used = await taken(connection)
    cursor = await connection.execute(
        """
        SELECT w.id, w.resources, w.engines, w.quarantined_at IS NOT NULL FROM workers w
        WHERE w.evicted_at IS NULL AND NOT w.drain AND (w.quarantined_at IS NULL OR (
            w.canary_at <= %(now)s
            AND NOT EXISTS (
                SELECT FROM attempts a
                WHERE a.held_by = w.id AND a.settled_at IS NULL AND a.assigned_at >= w.canary_at)
            AND NOT EXISTS (SELECT FROM attempts a WHERE """
        + endings.CANARY_ENDED
        + """)))
        ORDER BY w.id
        """,
        {"now": now, "telling": endings.TELLING_REASONS},
    )
    return [
        _room(worker_id, left(resources_of(raw), used.get(worker_id, ())), engines, on_trial)
        for worker_id, raw, engines, on_trial in await cursor.fetchall()
    ]


def _room(worker_id: str, free: Free, engines: Sequence[str], on_trial: bool) -> WorkerRoom:
    free = replace(free, slots=min(free.slots, 1)) if on_trial else free
    return WorkerRoom(worker_id, free, frozenset(engines), on_trial)


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
    former, drain, registered_at, seen_at, evicted_at, forgotten = row[9:15]
    quarantine = None if row[15] is None else _quarantine(row[15:])
    said = Registration(worker_id, instance, seq, host_id, resources_of(resources), tags, engines, version, images)
    return Worker(said, former, drain, registered_at, seen_at, evicted_at, forgotten, quarantine)


def _quarantine(row: Sequence[Any]) -> Quarantine:
    since, cause, reason, until, canaries = row
    return Quarantine(since, Cause(cause), reason, until, canaries)
