"""The loops of a server process: one, which leads when it is this server's turn. Only here is a clock looked at."""

import asyncio
import logging
import os
import secrets
import socket
from dataclasses import dataclass
from time import monotonic

import psycopg

from gyoza.control import leadership
from gyoza.control.place import place
from gyoza.control.reap import reap
from gyoza.policy.liveness import Pace
from gyoza.store.bell import QUEUE, Bell
from gyoza.store.database import Database

TICK_S = 1.0
"""How often the leader renews, reaps, and looks at the queue by itself."""

_log = logging.getLogger(__name__)


@dataclass
class Leading:
    """One server's part in leading. `once` is a whole turn; it may be called at any time."""

    database: Database
    pace: Pace
    holder: str
    epoch: int | None = None
    renewed: float = float("-inf")
    hearing_since: float = float("inf")
    """Since when workers can be heard without a break: nobody counts as silent before a whole lease of that."""

    async def once(self) -> dict[str, int]:
        """Counts of what was done; nothing while another server leads."""
        due = monotonic() - self.renewed >= TICK_S
        if due or self.epoch is None:
            await self._hold()
        if self.epoch is None:
            return {}
        reaps = due and monotonic() - self.hearing_since >= self.pace.lease_s
        counts = await reap(self.database, self.epoch, self.pace, self.database.clock.now()) if reaps else {}
        return {**counts, "placed": await place(self.database, self.epoch, self.database.clock.now())}

    async def _hold(self) -> None:
        before, self.epoch = self.epoch, await leadership.hold(self.database, self.holder, self.epoch)
        self.renewed = monotonic()
        if self.epoch != before:
            self.hearing_since = self.renewed

    async def resign(self) -> None:
        if self.epoch is not None:
            await leadership.resign(self.database, self.epoch)


async def lead(database: Database, bell: Bell, pace: Pace, stopping: asyncio.Event) -> None:
    """Until the server stops: a turn whenever the queue's bell rings, and once a second."""
    leading = Leading(database, pace, f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}")
    with bell.heard(QUEUE) as ear:
        while not stopping.is_set():
            placed = await _turn(leading)
            if not placed:
                await ear.wait(TICK_S)
    try:
        await leading.resign()
    except psycopg.Error:
        _log.info("could not resign: the next leader waits for the lease to run out")


async def _turn(leading: Leading) -> int:
    """How many runs were placed. Whatever goes wrong in one turn, the loop goes on to the next."""
    try:
        return (await leading.once()).get("placed", 0)
    except leadership.Deposed:
        leading.epoch = None
    except psycopg.OperationalError as error:
        leading.hearing_since = monotonic()
        _log.warning("no turn while the database cannot be reached: %s", str(error).strip())
    except Exception:
        _log.exception("a turn of the leader failed; trying again")
    return 0
