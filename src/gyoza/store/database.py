"""The one way to the database: a pool, transactions that try again after a deadlock, and the database's clock."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.adapt import Loader
from psycopg.errors import DeadlockDetected, IdleInTransactionSessionTimeout, SerializationFailure
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Connection = AsyncConnection[TupleRow]
Result = TypeVar("Result")

FROZEN_AFTER_MS = "3000"
"""A transaction idle for so long belongs to a frozen process: the database ends it, so that it blocks no one."""
_TRIES = 5
_STEADY: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BIG_STEP = timedelta(seconds=1)


class _RawJson(Loader):
    """JSON is handed out as it was received: parsing it would lose long decimals and big exponents."""

    def load(self, data: Any) -> msgspec.Raw:
        return msgspec.Raw(bytes(data))


class _Text(Loader):
    """Ids stay the text that clients know."""

    def load(self, data: Any) -> str:
        return bytes(data).decode()


class Clock:
    """The database's clock, read without asking it each time: several servers then agree on what time it is.

    Between two askings it counts by a clock that nobody sets: where this machine's own one is set forward by an hour,
    no lease has run out, and no run waits an hour longer.
    """

    def __init__(self) -> None:
        self._zero = datetime.now(UTC) - _running()
        self._last = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        """Later than what it said before, so that what happens later is dated later; a big step back is followed."""
        moment = self._zero + _running()
        if self._last - moment < _BIG_STEP:
            moment = max(moment, self._last + timedelta(microseconds=1))
        self._last = moment
        return moment

    async def sync(self, connection: Connection) -> None:
        """Sets it anew only where the answer, whose doubt is half of the time it took, contradicts it."""
        asked = _running()
        cursor = await connection.execute("SELECT clock_timestamp()")
        row = await cursor.fetchone()
        assert row is not None
        doubt = (_running() - asked) / 2
        zero = row[0] - (asked + doubt)
        if abs(zero - self._zero) > doubt:
            self._zero = zero


def _running() -> timedelta:
    """How long this machine has been running; where the system can tell, with the time that it was suspended."""
    return timedelta(seconds=time.clock_gettime(_STEADY))


class Database:
    """Opened by `async with Database(url) as database`."""

    def __init__(self, url: str, *, size: int = 10, clock: Clock | None = None):
        self.url = url
        self.clock = clock or Clock()
        self._pool = AsyncConnectionPool[Connection](
            url,
            min_size=2,
            max_size=size,
            open=False,
            configure=_configure,
            check=AsyncConnectionPool.check_connection,
            kwargs={"autocommit": True, "connect_timeout": 10},
        )

    async def __aenter__(self) -> "Database":
        await self._pool.open(wait=True, timeout=30)
        async with self.connection() as connection:
            await self.clock.sync(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close(timeout=2)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """For single statements, each its own transaction."""
        async with self._pool.connection() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[Connection]:
        """For reading several times as of one moment."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    async def transact(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run `work` in one transaction, anew where the database ended it: a deadlock, or this process froze."""
        for left in reversed(range(_TRIES)):
            try:
                async with self.connection() as connection, connection.transaction():
                    return await work(connection)
            except (DeadlockDetected, SerializationFailure, IdleInTransactionSessionTimeout):
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def is_ready(self) -> bool:
        try:
            async with self._pool.connection(timeout=2) as connection:
                await connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True


async def _configure(connection: Connection) -> None:
    connection.adapters.register_loader("json", _RawJson)
    connection.adapters.register_loader("uuid", _Text)
    await connection.execute("SET TIME ZONE 'UTC'")
    # What is asked for often is in memory: the default is for disks that turn, and reads whole tables too gladly.
    await connection.execute("SET random_page_cost = 1.1")
    # The plan that the tests have seen, made once: with the values at hand, a plan is made anew each time and costs as
    # much as the look itself.
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", [FROZEN_AFTER_MS])
