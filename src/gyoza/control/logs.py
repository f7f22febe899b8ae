"""The logs of attempts: sent by the worker that holds one, read and followed by whoever may.

The bytes lie on a shelf, in chunks; the index in the database says which chunks there are. Bytes come onto the shelf
before the index names them, and leave it after the index has ceased to: what is read is whole, whatever breaks off.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Protocol

from gyoza.models.errors import LeaseLost, NotFound, Refusal, RunNotFound, WrongOffset
from gyoza.models.run import is_run_id
from gyoza.policy.logs import JOINED_BELOW, Addition, addition, divided
from gyoza.store import logs
from gyoza.store.bell import Bell, log_of, ring
from gyoza.store.database import Connection, Database
from gyoza.store.logs import Chunk, Log

_log = logging.getLogger(__name__)

LOOK_AGAIN_S = 15.0
"""The bell is a hint: without it, whoever follows a log looks this often."""
_AT_ONCE = 100
"""How many chunks are looked up, or runs' logs discarded, in one go."""
_DISCARDED_AGAIN = timedelta(minutes=10)


class Shelf(Protocol):
    """Where bytes lie by name: put whole, read, discarded, and never changed."""

    async def put(self, name: str, data: bytes) -> None:
        """When this returns, the bytes are there to stay."""
        ...

    async def read(self, name: str, start: int = 0) -> bytes:
        """The bytes from `start` on; FileNotFoundError where there is nothing of this name."""
        ...

    async def discard(self, name: str) -> None:
        """Also when it is gone already."""
        ...

    async def discard_all(self, folder: str) -> None:
        """Everything whose name begins with `folder` and a slash."""
        ...


@dataclass(frozen=True)
class Sent:
    """Bytes of a log from `offset` on. `worker`: the only one for which the sender may speak, None where any."""

    run_id: str
    attempt: int
    lease: str
    worker: str | None
    offset: int
    data: bytes


@dataclass(frozen=True)
class Appended:
    """`offset`: with which to go on. `cut`: the log is full; what is sent from now on is taken in and dropped."""

    offset: int
    cut: bool

    def to_dict(self) -> dict[str, Any]:
        return {"offset": self.offset, "cut": self.cut}


@dataclass(frozen=True)
class Reading:
    """`log` as it stands when the reading begins, and its bytes from `start` on."""

    log: Log
    start: int
    parts: AsyncGenerator[bytes]


async def append(database: Database, shelf: Shelf, sent: Sent, limit: int) -> Appended:
    """What is there already is not written again. Raises RunNotFound, AttemptNotFound, LeaseLost or WrongOffset."""
    while True:
        async with database.connection() as connection:
            log = await _writable(connection, sent)
        if sent.data and sent.offset > log.size and not log.cut:
            raise WrongOffset(sent.run_id, sent.attempt, sent.offset, log.size)
        added = Addition(b"", cut=True) if log.cut else addition(log.size, sent.offset, sent.data, limit)
        if not added.data or await _keep(database, shelf, sent, log, added):
            end = sent.offset + len(sent.data) if added.cut else log.size + len(added.data)
            return Appended(end, added.cut)


async def read(database: Database, shelf: Shelf, run_id: str, attempt: int | None, start: int) -> Reading:
    """The log as it stands. Raises RunNotFound or AttemptNotFound."""
    log = await _look(database, run_id, attempt)
    return Reading(log, start, _between(database, shelf, log, start))


async def follow(database: Database, shelf: Shelf, bell: Bell, run_id: str, attempt: int | None, start: int) -> Reading:
    """The log and what is added to it, until nothing will be, or the server stops."""
    log = await _look(database, run_id, attempt)
    return Reading(log, start, _growing(database, shelf, bell, log, start))


async def discard(database: Database, shelf: Shelf, now: datetime) -> int:
    """The bytes of logs that the index has forgotten: of how many runs. What cannot go just now holds up no other.

    Nothing is locked meanwhile. Broken off, or done by two at once, it is only done again.
    """
    async with database.connection() as connection:
        due = await logs.to_discard(connection, now, _AT_ONCE)
    gone = [run_id for run_id in due if await _discarded(shelf, run_id)]
    left = [run_id for run_id in due if run_id not in gone]

    async def work(connection: Connection) -> None:
        await logs.discarded(connection, gone, left, now + _DISCARDED_AGAIN)

    if due:
        await database.transact(work)
    return len(gone)


async def _discarded(shelf: Shelf, run_id: str) -> bool:
    try:
        await shelf.discard_all(_folder(run_id))
    except OSError as error:
        _log.warning("the logs of run %s cannot be deleted yet: %s", run_id, error)
        return False
    return True


async def _writable(connection: Connection, sent: Sent) -> Log:
    if not is_run_id(sent.run_id):
        raise RunNotFound(sent.run_id)
    log = await logs.look(connection, sent.run_id, sent.attempt)
    if log.settled or log.lease != sent.lease or sent.worker not in (None, log.held_by):
        raise LeaseLost(sent.run_id, sent.attempt)
    return log


async def _keep(database: Database, shelf: Shelf, sent: Sent, log: Log, added: Addition) -> bool:
    """Whether it was; not, where somebody else has added to the log meanwhile: then everything is judged anew.

    The bytes are put before the transaction, which stays short. Where its outcome is unknown they are left, and go
    with the run.
    """
    new = await _put(shelf, log, added.data)

    async def work(connection: Connection) -> bool:
        await logs.lock(connection, log.run_id, log.attempt)
        if (await _writable(connection, sent)).size != log.size:
            return False
        size = log.size + len(added.data)
        await logs.extend(connection, log.run_id, log.attempt, new, size=size, cut=added.cut)
        await ring(connection, [log_of(log.run_id)])
        return True

    try:
        kept = await database.transact(work)
    except Refusal:
        await _discard(shelf, new)
        raise
    replaced = [log.last] if log.last is not None and log.last.start == new[0].start else []
    await _discard(shelf, replaced if kept else new)
    return kept


async def _put(shelf: Shelf, log: Log, data: bytes) -> list[Chunk]:
    """`data` as chunks behind those of `log`, the first in place of a small last one."""
    start = log.size
    if log.last is not None and log.last.size < JOINED_BELOW:
        with suppress(FileNotFoundError):
            data, start = await shelf.read(log.last.name) + data, log.last.start
    put: list[Chunk] = []
    for part in divided(data):
        chunk = Chunk(start, len(part), f"{_folder(log.run_id)}/{log.attempt}/{token_hex(12)}")
        await shelf.put(chunk.name, part)
        put.append(chunk)
        start += len(part)
    return put


async def _discard(shelf: Shelf, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        await shelf.discard(chunk.name)


async def _look(database: Database, run_id: str, attempt: int | None) -> Log:
    if not is_run_id(run_id):
        raise RunNotFound(run_id)
    async with database.connection() as connection:
        return await logs.look(connection, run_id, attempt)


async def _growing(database: Database, shelf: Shelf, bell: Bell, log: Log, start: int) -> AsyncGenerator[bytes]:
    with bell.heard(log_of(log.run_id)) as ear, suppress(NotFound):  # the run may be deleted meanwhile
        while True:
            log = await _look(database, log.run_id, log.attempt)
            async for part in _between(database, shelf, log, start):
                yield part
                start += len(part)
            if log.ended or bell.is_closed:
                return
            await ear.wait(LOOK_AGAIN_S)


async def _between(database: Database, shelf: Shelf, log: Log, start: int) -> AsyncGenerator[bytes]:
    """The bytes from `start` to the end of `log`, a chunk at a time; no connection is held while they are sent.

    A chunk whose bytes are gone was replaced since it was looked up; FileNotFoundError where it was not.
    """
    missed = None
    while start < log.size:
        async with database.connection() as connection:
            found = await logs.chunks(connection, log.run_id, log.attempt, start, _AT_ONCE)
        if not found:
            raise RunNotFound(log.run_id)
        for chunk in found:
            try:
                data = await shelf.read(chunk.name, start - chunk.start)
            except FileNotFoundError:
                if chunk == missed:
                    raise
                missed = chunk
                break
            yield data[: log.size - start]
            start += len(data)


def _folder(run_id: str) -> str:
    """In one of 256 folders, by the part of the id that is random."""
    return f"logs/{run_id[-2:]}/{run_id}"
