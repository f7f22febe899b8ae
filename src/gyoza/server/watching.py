"""What those who watch are told: each event once, in order, without a gap, from the database and then as it comes."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import psycopg

from gyoza.control import feed, query
from gyoza.control.feed import Entry
from gyoza.models.errors import RunNotFound
from gyoza.models.lifecycle import LEADS_TO
from gyoza.models.run import OpRun
from gyoza.server import sse
from gyoza.server.sse import News
from gyoza.server.tail import Interest, Tail, Watch
from gyoza.store.database import Database

HEARTBEAT_S = 15.0
"""After so long a silence a stream says that it lives: proxies and clients close what they hear nothing of."""
LONGEST_S = 900.0
"""A stream that is older ends, and its client connects anew: by then its key may have been revoked."""
AGAIN_S = 1.0
"""While the database is away, a stream that needs it stays open and tries again after so long."""
_ENDINGS = frozenset(kind for kind, state in LEADS_TO.items() if state.is_terminal)


class Reader(Protocol):
    """How far somebody has read."""

    async def read(self, database: Database, position: int) -> tuple[Sequence[Entry], bool]:
        """Read on in the database, and whether there may be more; `position` is the tail's."""
        ...

    def beyond(self, fresh: Sequence[News], position: int) -> Sequence[News] | None:
        """What is new among all that was handed out up to `position`; None where some of it is missing."""
        ...


@dataclass
class OfRun:
    """`last`: the number of the last event that was read."""

    run_id: str
    last: int

    async def read(self, database: Database, position: int) -> tuple[Sequence[Entry], bool]:
        """Raises RunNotFound once the run is deleted."""
        page = await feed.page_of_run(database, self.run_id, self.last)
        self.last = page.upto
        return page.entries, page.has_more

    def beyond(self, fresh: Sequence[News], position: int) -> Sequence[News] | None:
        fresh = [news for news in fresh if news.entry.event.id > self.last]
        if fresh and fresh[-1].entry.event.id != self.last + len(fresh):
            return None
        self.last += len(fresh)
        return fresh


@dataclass
class OfCluster:
    """`last`: the position up to which all was read; None: to begin with what is published from now on."""

    interest: Interest
    last: int | None

    async def read(self, database: Database, position: int) -> tuple[Sequence[Entry], bool]:
        """From now on is from where the tail was: it may have passed over what nobody watched a moment ago."""
        page = await feed.page(database, position if self.last is None else self.last, lambda each: True)
        self.last = page.upto
        return [entry for entry in page.entries if self.interest.fits(entry)], page.has_more

    def beyond(self, fresh: Sequence[News], position: int) -> Sequence[News]:
        fresh = [news for news in fresh if news.entry.pos > (self.last or 0)]
        self.last = max(self.last or 0, position)
        return fresh


async def stream_of_run(tail: Tail, run_id: str, after: int) -> AsyncGenerator[bytes]:
    """The run's events with a number above `after`, until it is over, or deleted."""
    yield sse.RETRY
    with tail.watching(Interest(run_id)) as watch, suppress(RunNotFound):
        async for fresh in _follow(tail, watch, OfRun(run_id, after)):
            yield b"".join(news.of_run for news in fresh) or sse.HEARTBEAT
            if fresh and fresh[-1].entry.is_end:
                yield sse.end(fresh[-1].entry.state)
                return


async def stream_of_cluster(tail: Tail, interest: Interest, after: int | None) -> AsyncGenerator[bytes]:
    """What is published above the position `after`, or from now on, as far as it is of interest."""
    yield sse.RETRY
    with tail.watching(interest) as watch:
        reader, said = OfCluster(interest, after), -1
        async for fresh in _follow(tail, watch, reader):
            last = fresh[-1].entry.pos if fresh else reader.last
            # Without a position yet, the database being away, there is none to tell: 0 would mean all that is kept.
            silence = sse.HEARTBEAT if last in (None, said) else sse.HEARTBEAT + sse.position(last)
            yield b"".join(news.of_cluster for news in fresh) or silence
            said = last


async def ended(tail: Tail, run_id: str, timeout_s: float) -> OpRun:
    """The run once it is over; as it is when the time is, or when the server stops. Raises RunNotFound."""
    until = monotonic() + timeout_s
    with tail.watching(Interest(run_id, types=_ENDINGS)) as watch:
        while True:
            await tail.take_up()
            watch.behind = False
            run = await query.get(tail.database, run_id)
            if run.state.is_terminal or not await _end_heard(tail, watch, until):
                return run


async def _end_heard(tail: Tail, watch: Watch, until: float) -> bool:
    """Whether there is news that the run is over, or news were missed; not, when it is too late to look."""
    while not tail.is_closed and (left_s := until - monotonic()) > 0:
        if any(news.entry.is_end for news in await watch.take(left_s)) or watch.behind:
            return True
    return False


async def _follow(tail: Tail, watch: Watch, reader: Reader) -> AsyncGenerator[Sequence[News]]:
    """All that is new to the reader; nothing, at the beginning and after each silence."""
    over, silence = monotonic() + LONGEST_S, 0.0
    while not tail.is_closed and (now := monotonic()) < over:
        fresh = await _step(tail, watch, reader, max(0.0, min(silence, over) - now))
        if fresh or monotonic() >= silence:
            silence = monotonic() + HEARTBEAT_S
            yield fresh


async def _step(tail: Tail, watch: Watch, reader: Reader, timeout_s: float) -> Sequence[News]:
    """What is new, after `timeout_s` at the latest; left behind, the watcher reads the database, be it away or not."""
    if not watch.behind:
        handed = await watch.take(timeout_s)
        fresh = None if watch.behind else reader.beyond(handed, tail.position or 0)
        if fresh is None:
            watch.leave_behind()
        return fresh or ()
    try:
        position = await tail.take_up()
        watch.behind = False
        entries, has_more = await reader.read(tail.database, position)
        if has_more:
            watch.leave_behind()
    except psycopg.OperationalError:
        watch.leave_behind()
        await asyncio.sleep(AGAIN_S)
        return ()
    return [News(entry) for entry in entries]
