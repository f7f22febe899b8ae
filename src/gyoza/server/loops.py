"""The loops of a server process: the leader's duties, when it is this server's turn, and the tail of the feed.

Only here is a clock looked at.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TypeVar

import psycopg

from gyoza.control import leadership
from gyoza.control.leadership import Deposed
from gyoza.control.logs import Shelf
from gyoza.control.place import place
from gyoza.control.publish import publish
from gyoza.control.reap import reap
from gyoza.control.tidy import tidy
from gyoza.control.trust import judge
from gyoza.policy.liveness import Pace
from gyoza.server.tail import Tail
from gyoza.store.bell import FEED, OUTBOX, QUEUE, Bell
from gyoza.store.database import Database

TICK_S = 1.0
"""How often the leader renews, and looks by itself for what there is to do."""
GATHER_S = 0.02
"""How long the leader lets events gather before it publishes again, so that one transaction is for many."""
JUDGE_S = 5.0
"""How often workers are compared while any of them is in doubt."""
TIDY_REST_S = 0.1
"""The pause between batches of what is deleted: others come first."""
TIDY_IDLE_S = 10.0
"""How often the leader looks for what may be deleted."""
NOTHING = "nothing"
"""A topic that nobody rings."""
LOOK_AGAIN_S = 5.0
"""The bell is a hint: without it, the tail looks this often."""

_log = logging.getLogger(__name__)
Counts = Mapping[str, int]
Done = TypeVar("Done")


@dataclass(frozen=True)
class Keeping:
    """How long runs are kept after their end (None: for ever), and where the bytes of their logs lie."""

    keep_for: timedelta | None
    shelf: Shelf


@dataclass
class Leading:
    """One server's part in leading: an epoch, which all duties share. Without `keeping` nothing is deleted."""

    database: Database
    pace: Pace
    holder: str
    keeping: Keeping | None = None
    epoch: int | None = None
    reaped: float = float("-inf")
    hearing_since: float = float("inf")
    """Since when workers can be heard without a break: nobody counts as silent before a whole lease of that."""
    elected: asyncio.Event = field(default_factory=asyncio.Event)
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def hold(self) -> None:
        """Renew, or try to win.

        No turn begins meanwhile. A turn holds the leader's row until its transactions end, and renewing waits for that:
        turns that overlap without a break would keep it out until the lease has run out.
        """
        async with self._renewing:
            with self._hearing():
                epoch = await leadership.hold(self.database, self.holder, self.epoch)
            if epoch != self.epoch:
                self.hearing_since = monotonic()
            self._set(epoch)

    async def do(self, duty: "Duty") -> Counts:
        """One turn of a duty, nothing while another server leads. Where it finds that one does, all duties rest."""
        async with self._renewing:
            epoch = self.epoch
        if epoch is None:
            return {}
        try:
            with self._hearing():
                return await duty.once(self, epoch)
        except Deposed:
            if self.epoch == epoch:
                self._set(None)
            raise

    async def resign(self) -> None:
        if self.epoch is not None:
            await leadership.resign(self.database, self.epoch)

    def _set(self, epoch: int | None) -> None:
        self.epoch = epoch
        self.elected.clear() if epoch is None else self.elected.set()

    @contextmanager
    def _hearing(self) -> Generator[None]:
        """While the database is away, no worker can be heard."""
        try:
            yield
        except psycopg.OperationalError:
            self.hearing_since = monotonic()
            raise


@dataclass(frozen=True)
class Duty:
    """What the leader does. `once` is a turn, of an epoch; it counts what it did.

    The next turn follows `rest_s` after one that did something, else when `topic` rings, and `idle_s` later at the
    latest. Turns of one duty never overlap; those of different duties do.
    """

    name: str
    once: Callable[[Leading, int], Awaitable[Counts]]
    topic: str
    rest_s: float = 0.0
    idle_s: float = TICK_S


async def _schedule(leading: Leading, epoch: int) -> Counts:
    """Reaping and placing take turns: no run is placed on a worker that is being given up."""
    database, counts = leading.database, dict[str, int]()
    if monotonic() - leading.reaped >= TICK_S and monotonic() - leading.hearing_since >= leading.pace.lease_s:
        leading.reaped = monotonic()
        counts.update(await reap(database, epoch, leading.pace, database.clock.now()))
    return {**counts, "placed": await place(database, epoch, database.clock.now())}


async def _publish(leading: Leading, epoch: int) -> Counts:
    return {"published": await publish(leading.database, epoch)}


async def _judge(leading: Leading, epoch: int) -> Counts:
    return await judge(leading.database, epoch, leading.database.clock.now())


async def _tidy(leading: Leading, epoch: int) -> Counts:
    if leading.keeping is None:
        return {}
    now = leading.database.clock.now()
    return await tidy(leading.database, epoch, leading.keeping.keep_for, leading.keeping.shelf, now)


DUTIES = (
    Duty("scheduling", _schedule, QUEUE),
    Duty("judging", _judge, NOTHING, JUDGE_S),
    Duty("publishing", _publish, OUTBOX, GATHER_S),
    Duty("tidying", _tidy, NOTHING, TIDY_REST_S, TIDY_IDLE_S),
)


async def lead(
    database: Database, bell: Bell, pace: Pace, stopping: asyncio.Event, keeping: Keeping | None = None
) -> None:
    """Every duty in a loop of its own, so that none waits for another, until the server stops."""
    leading = Leading(database, pace, f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}", keeping)
    await asyncio.gather(_keep(leading, stopping), *(_serve(leading, duty, bell, stopping) for duty in DUTIES))
    try:
        await leading.resign()
    except psycopg.Error:
        _log.info("could not resign: the next leader waits for the lease to run out")


async def follow_feed(tail: Tail, bell: Bell, stopping: asyncio.Event) -> None:
    """The tail reads on whenever something was published, until the server stops."""
    with bell.heard(FEED) as ear:
        while not stopping.is_set():
            if not await _turn("the tail", tail.once):
                await ear.wait(LOOK_AGAIN_S)


async def _keep(leading: Leading, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        await _turn("leadership", leading.hold)
        await _rest(stopping, TICK_S)
    leading.elected.set()  # who waits to be elected is to see that the server stops


async def _serve(leading: Leading, duty: Duty, bell: Bell, stopping: asyncio.Event) -> None:
    with bell.heard(duty.topic) as ear:
        while not stopping.is_set():
            await leading.elected.wait()
            counts = await _turn(duty.name, partial(leading.do, duty))
            if counts is None:
                await _rest(stopping, TICK_S)
            elif any(counts.values()):
                await _rest(stopping, duty.rest_s)
            else:
                await ear.wait(duty.idle_s)


async def _rest(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()


async def _turn(name: str, once: Callable[[], Awaitable[Done]]) -> Done | None:
    """One turn of a loop. Whatever goes wrong in it, the loop goes on to the next."""
    try:
        return await once()
    except Deposed:
        pass
    except psycopg.OperationalError as error:
        _log.warning("no turn of %s while the database cannot be reached: %s", name, str(error).strip())
    except Exception:
        _log.exception("a turn of %s failed; trying again", name)
    return None
