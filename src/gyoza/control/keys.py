"""Keys: made, looked up, listed, revoked."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gyoza.models.errors import KeyNotFound
from gyoza.models.keys import HINT_LENGTH, PREFIX, Key, Scope, digest
from gyoza.models.run import is_run_id
from gyoza.store import bell, keys
from gyoza.store.database import Connection, Database
from gyoza.store.ids import new_id


@dataclass(frozen=True)
class Wanted:
    """`worker`: the worker that the key is for, where its scope is that; `expires_in_s` None: never."""

    name: str
    scopes: Iterable[Scope]
    worker: str | None = None
    expires_in_s: float | None = None


def new_text() -> str:
    """The text of a key: 256 random bits, and a beginning by which people and scanners see what it is."""
    return PREFIX + secrets.token_urlsafe(32)


async def create(database: Database, wanted: Wanted, by: str, now: datetime) -> tuple[Key, str]:
    """The key and its text, which is told here once and kept nowhere. `by`: who makes it."""
    text = new_text()
    key = Key(
        id=new_id(now),
        name=wanted.name,
        scopes=frozenset(wanted.scopes),
        worker=wanted.worker,
        hint=text[-HINT_LENGTH:],
        created_at=now,
        created_by=by,
        expires_at=None if wanted.expires_in_s is None else now + timedelta(seconds=wanted.expires_in_s),
    )
    async with database.connection() as connection:
        await keys.keep(connection, key, digest(text.encode()))
    return key, text


async def find(database: Database, hashed: bytes, now: datetime) -> Key | None:
    """The key with this digest, be it good or not; that it was used is noted."""
    async with database.connection() as connection:
        return await keys.find(connection, hashed, now)


async def every(database: Database) -> list[Key]:
    async with database.connection() as connection:
        return await keys.every(connection)


async def revoke(database: Database, key_id: str, now: datetime) -> None:
    """From now on, on every server: each forgets at once what it knows of keys. Asking twice is asking once."""

    async def work(connection: Connection) -> None:
        if not (is_run_id(key_id) and await keys.revoke(connection, key_id, now)):
            raise KeyNotFound(key_id)
        await bell.ring(connection, [bell.KEYS])

    await database.transact(work)
