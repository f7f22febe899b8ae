"""Asking twice is asking once: an answer is kept under its idempotency key, in the transaction that made it true.

The key is taken before the work is begun. Whoever comes with the same key meanwhile waits for that transaction, and
then finds its answer, or takes the key where it failed: refusals are not kept.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gyoza.models.errors import IdempotencyKeyReused
from gyoza.store import idempotency
from gyoza.store.database import Connection, Database
from gyoza.store.idempotency import Reply as Reply

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True)
class Asked:
    """A request under an idempotency key. `owner`: whose key it is; `fingerprint`: SHA-256 of all that was asked."""

    owner: str
    key: str
    fingerprint: bytes


async def once(
    database: Database, asked: Asked | None, work: Callable[[Connection], Awaitable[Reply]], now: datetime
) -> Reply:
    """The answer of `work`, or the one that was given before; raises IdempotencyKeyReused where another was asked."""

    async def first(connection: Connection) -> Reply:
        if asked is None:
            return await work(connection)
        if not await idempotency.take(connection, asked.owner, asked.key, asked.fingerprint, now, now + KEPT_FOR):
            return await _again(connection, asked)
        reply = await work(connection)
        await idempotency.keep(connection, asked.owner, asked.key, reply)
        return reply

    return await database.transact(first)


async def _again(connection: Connection, asked: Asked) -> Reply:
    fingerprint, reply = await idempotency.stored(connection, asked.owner, asked.key)
    if fingerprint != asked.fingerprint:
        raise IdempotencyKeyReused(asked.key)
    return reply
