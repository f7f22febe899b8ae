"""Whose key it is. What was looked up is known for a few seconds, or until somewhere a key is revoked."""

import asyncio
import secrets
from dataclasses import dataclass
from functools import partial
from time import monotonic

from gyoza.control import keys
from gyoza.models.keys import BOOTSTRAP, SHAPE, Caller, Key, digest
from gyoza.store.bell import KEYS, Bell
from gyoza.store.database import Database

FORGET_AFTER_S = 3.0
"""The bell is a hint: should it not ring, a revoked key is refused after this time."""
MOST = 10_000
"""So many keys are known at once, right ones and wrong ones together; the oldest go first."""


@dataclass(frozen=True)
class Known:
    """What a key turned out to be (None: no key of ours), as soon as `looking` is done."""

    until: float
    looking: asyncio.Task[Key | None]


class Keyring:
    """`api_key` is the key that the server was started with: it is right without a look at the database."""

    def __init__(self, database: Database, bell: Bell, api_key: str, *, forget_after_s: float = FORGET_AFTER_S):
        self._database = database
        self._ear = bell.ear(KEYS)
        self._bootstrap = digest(api_key.encode())
        self._forget_after_s = forget_after_s
        self._known: dict[bytes, Known] = {}

    async def caller(self, given: bytes) -> Caller | None:
        """None for a key that is not known, has expired or was revoked."""
        hashed = digest(given)
        if secrets.compare_digest(hashed, self._bootstrap):
            return BOOTSTRAP
        if not SHAPE.fullmatch(given):
            return None
        key = await self._found(hashed)
        return key.caller if key is not None and key.is_good(self._database.clock.now()) else None

    async def _found(self, hashed: bytes) -> Key | None:
        """All who ask for one key at one time share one look at the database, unless the bell rang since it began."""
        if self._ear.rang():
            self._known.clear()
        found, now = self._known.get(hashed), monotonic()
        if found is None or found.until < now:
            found = Known(now + self._forget_after_s, asyncio.create_task(self._looked_up(hashed)))
            _remember(self._known, hashed, found)
        return await asyncio.shield(found.looking)

    async def _looked_up(self, hashed: bytes) -> Key | None:
        return await keys.find(self._database, hashed, self._database.clock.now())


def _remember(known: dict[bytes, Known], hashed: bytes, found: Known) -> None:
    if len(known) >= MOST:
        del known[next(iter(known))]
    known[hashed] = found
    found.looking.add_done_callback(partial(_forget_failure, known, hashed))


def _forget_failure(known: dict[bytes, Known], hashed: bytes, looking: asyncio.Task[Key | None]) -> None:
    """Those who wait hear of it; whoever comes next asks anew."""
    if looking.cancelled() or looking.exception() is not None:
        known.pop(hashed, None)
