"""The one reader of the feed in a server process: what is new is read once and handed out in memory.

While nobody watches, nothing is read. Whoever watches joins in this order, and misses nothing:

1. It is entered here. What the tail reads from now on is handed to it.
2. The tail has a position (`take_up`); what lies above is still to be read, and handed out.
3. Then it reads the database from where it is. All that the tail had read before lies there already.
4. From then on it takes what it is handed, and passes over what it has: some come both ways.

Who does not take what it is handed is left behind: its buffer is dropped, and it does 3 and 4 again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

from gyoza.control import feed
from gyoza.control.feed import Entry, Position
from gyoza.models.lifecycle import EventType
from gyoza.server.sse import News
from gyoza.store.database import Database

FULL = 2**19
"""Bytes that may wait for one watcher; it is left behind when more comes."""


@dataclass(frozen=True)
class Interest:
    """What a watcher wants to hear of. What is not named does not narrow; a run must have all of `tags`."""

    run_id: str | None = None
    op_definition: str | None = None
    types: frozenset[EventType] = frozenset()
    tags: frozenset[str] = frozenset()

    def fits(self, entry: Entry) -> bool:
        return (
            self.run_id in (None, entry.run_id)
            and self.op_definition in (None, entry.op_definition)
            and (not self.types or entry.event.type in self.types)
            and self.tags <= frozenset(entry.tags)
        )


class Watch:
    """What one watcher has been handed and not taken. `behind`: nothing is kept for it until it has set this false."""

    def __init__(self, interest: Interest):
        self.interest = interest
        self.behind = True
        self._fresh: list[News] = []
        self._size = 0
        self._woken = asyncio.Event()

    def hand(self, fresh: Iterable[News], size: int) -> None:
        if self.behind or (self._fresh and self._size + size > FULL):
            return self.leave_behind()
        self._fresh.extend(fresh)
        self._size += size
        return self.wake()

    def leave_behind(self) -> None:
        self.behind, self._fresh, self._size = True, [], 0
        self.wake()

    def wake(self) -> None:
        self._woken.set()

    async def take(self, timeout_s: float) -> list[News]:
        """What was handed, as soon as there is something; be it nothing, when the time is over or the server stops.

        All of it, also when the time is over at that very moment: the tail's position says that it was handed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        self._woken.clear()
        fresh, self._fresh, self._size = self._fresh, [], 0
        return fresh


class Tail:
    """`position`: up to where it has read and handed out; None while nobody watches."""

    def __init__(self, database: Database):
        self.database = database
        self.position: int | None = None
        self.is_closed = False
        self._watches: defaultdict[str | None, set[Watch]] = defaultdict(set)

    @contextmanager
    def watching(self, interest: Interest) -> Generator[Watch]:
        watch = Watch(interest)
        self._watches[interest.run_id].add(watch)
        try:
            yield watch
        finally:
            self._watches[interest.run_id].discard(watch)
            if not self._watches[interest.run_id]:
                del self._watches[interest.run_id]

    async def take_up(self) -> int:
        """The position; for the first who watches, that of what is published last."""
        if self.position is None:
            newest = await feed.newest(self.database)
            if self.position is None:
                self.position = newest
        return self.position

    async def once(self) -> bool:
        """Read on and hand out; whether there may be more."""
        if not self._watches:
            self.position = None
        before = self.position
        if before is None:
            return False
        page = await feed.page(self.database, before, self._is_watched)
        for run_id in page.gone:
            for watch in self._watches.get(run_id, ()):
                watch.leave_behind()
        self._hand_out([News(entry) for entry in page.entries])
        self.position = page.upto
        return page.has_more

    def close(self) -> None:
        """The server stops: nobody waits any more."""
        self.is_closed = True
        for watch in chain.from_iterable(self._watches.values()):
            watch.wake()

    def _is_watched(self, position: Position) -> bool:
        return None in self._watches or position.run_id in self._watches

    def _hand_out(self, fresh: Sequence[News]) -> None:
        by_run: dict[str | None, list[News]] = {None: list(fresh)}
        for news in fresh:
            by_run.setdefault(news.entry.run_id, []).append(news)
        for run_id, about in by_run.items():
            _hand(about, self._watches.get(run_id, ()))


def _hand(fresh: Sequence[News], watches: Iterable[Watch]) -> None:
    """What fits is chosen once for all who have the same interest."""
    fitting: dict[Interest, tuple[list[News], int]] = {}
    for watch in watches:
        if watch.interest not in fitting:
            chosen = [news for news in fresh if watch.interest.fits(news.entry)]
            fitting[watch.interest] = chosen, sum(news.size for news in chosen)
        chosen, size = fitting[watch.interest]
        if chosen:
            watch.hand(chosen, size)
