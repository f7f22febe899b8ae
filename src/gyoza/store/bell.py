"""Waking those who wait, by NOTIFY: a hint and nothing more. Whoever waits looks by itself now and then."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import psycopg

from gyoza.store.database import Connection

_CHANNEL = "gyoza"
_LONGEST = 7000
_RECONNECT_S = 1.0

QUEUE = "queue"
"""Rung when something may be placed: a run came into the queue, or room became free."""
KEYS = "keys"
"""Rung when a key was revoked."""

OUTBOX = "outbox"
"""Rung when events were written, for the leader to publish."""
FEED = "feed"
"""Rung when events were published, for those who watch."""

_log = logging.getLogger(__name__)


def log_of(run_id: str) -> str:
    """Rung when there may be news for those who follow a log of this run."""
    return f"log:{run_id}"


async def ring(connection: Connection, topics: Iterable[str]) -> None:
    """Wake the waiters of `topics` (a constant, a worker's id, `log_of` a run) when this transaction commits."""
    text = json.dumps(sorted(set(topics)))
    if text == "[]":
        return
    await connection.execute("SELECT pg_notify(%s, %s)", [_CHANNEL, text if len(text) < _LONGEST else "[]"])


class Bell:
    """One LISTEN connection for a whole server process."""

    def __init__(self, url: str):
        self._url = url
        self._waiters: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self.is_closed = False

    async def __aenter__(self) -> "Bell":
        listening = asyncio.Event()
        self._task = asyncio.create_task(self._listen(listening))
        await listening.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def close(self) -> None:
        """Nobody waits any more: open long polls end now."""
        self.is_closed = True
        self._wake([])

    def ear(self, topic: str) -> "Ear":
        """Listens from now on, for as long as the bell hangs."""
        event = asyncio.Event()
        self._waiters[topic].add(event)
        return Ear(self, event)

    @contextmanager
    def heard(self, topic: str) -> Generator["Ear"]:
        """Listen from now on: look at the table after this, then wait, so that nothing slips through between."""
        event = asyncio.Event()
        self._waiters[topic].add(event)
        try:
            yield Ear(self, event)
        finally:
            self._waiters[topic].discard(event)
            if not self._waiters[topic]:
                del self._waiters[topic]

    def _wake(self, topics: list[str]) -> None:
        """No topics stands for all of them."""
        for topic in topics or list(self._waiters):
            for event in self._waiters.get(topic, ()):
                event.set()

    async def _listen(self, listening: asyncio.Event) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {_CHANNEL}")
                    listening.set()
                    self._wake([])
                    async for notice in connection.notifies():
                        self._wake(_topics(notice.payload))
            except psycopg.Error as error:
                _log.warning("the bell lost its connection (%s); connecting anew", str(error).strip())
            await asyncio.sleep(_RECONNECT_S)


def _topics(payload: str) -> list[str]:
    """Whoever rings in another way than `ring` wakes everyone: a hint costs no more than a look."""
    try:
        topics = json.loads(payload)
    except ValueError:
        return []
    return [str(topic) for topic in cast(list[Any], topics)] if isinstance(topics, list) else []


class Ear:
    def __init__(self, bell: Bell, event: asyncio.Event):
        self._bell = bell
        self._event = event

    def rang(self) -> bool:
        """Whether it rang since it was last asked; waits for nothing."""
        rang = self._event.is_set()
        self._event.clear()
        return rang

    async def wait(self, timeout_s: float) -> bool:
        """Until it rings (true), the time is over, or the server stops."""
        if self._bell.is_closed or timeout_s <= 0:
            return False
        try:
            async with asyncio.timeout(timeout_s):  # wait_for would swallow a cancellation that meets the bell
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return not self._bell.is_closed
