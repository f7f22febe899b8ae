"""What a worker keeps on disk of one attempt, so that a later process of it can go on where this one was killed.

One file, appended to. Each record says how long it is and what its checksum is: one that was torn is known, and ends
what counts. A report is recorded before it is sent, with whatever follows from it in the same record, so that what the
server may know the file knows, and nothing in it can be told twice or forgotten. A full disk stops nothing: what could
not be written stays in memory, is told all the same, and is written when there is room again.
"""

import asyncio
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gyoza.worker.engines.cleanup import to_the_end

FILE = "spool"
_HEAD = struct.Struct(">II")
"""The length of a record, and its checksum."""

T = TypeVar("T")
Record = dict[str, msgspec.Raw]

_log = logging.getLogger(__name__)


class Spool:
    """`seq`: the number of the newest report. `waiting`: those that had no verdict when this was read from disk.

    Without a `path`, nothing is kept.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self._size = 0
        self._unwritten = b""
        self._kept: Record = {}
        self.seq = 0
        self.waiting: dict[int, msgspec.Raw] = {}

    @classmethod
    def read(cls, path: Path) -> "Spool":
        """What an earlier process kept; it goes on behind the last whole record."""
        spool = cls(path)
        for record, end in records(path.read_bytes()):
            spool._learn(record)
            spool._size = end
        return spool

    def keep(self, **facts: Any) -> None:
        """Each of them stands until it is replaced."""
        self._append({"kept": facts})

    def recall(self, name: str, kind: type[T]) -> T | None:
        """What was kept under this name, as it stood on disk when this was read."""
        fact = bytes(self._kept.get(name, b"null"))
        return None if fact == b"null" else msgspec.json.decode(fact, type=kind)

    def add(self, report: Mapping[str, Any], facts: Mapping[str, Any]) -> msgspec.Raw:
        """The report as it is to be sent; it is kept together with these facts, or not at all."""
        raw = msgspec.Raw(msgspec.json.encode(report))
        self._append({"report": raw, "kept": facts})
        return raw

    def judged(self, seq: int) -> None:
        """The server has answered this report: it need not be sent again."""
        self._append({"judged": seq})

    async def sync(self) -> None:
        """What was kept so far outlives a crash of the machine as well."""
        if self._path is not None:
            await to_the_end(asyncio.to_thread(_sync, self._path))

    def forget(self) -> None:
        """Nothing is kept from now on."""
        self._path = None

    def _learn(self, record: Record) -> None:
        if "kept" in record:
            self._kept |= msgspec.json.decode(record["kept"], type=Record)
        if "report" in record:
            self.seq = _seq(record["report"])
            self.waiting[self.seq] = record["report"]
        if "judged" in record:
            self.waiting.pop(msgspec.json.decode(record["judged"]), None)

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        data = msgspec.json.encode(record)
        self._unwritten += _HEAD.pack(len(data), zlib.crc32(data)) + data
        try:
            _write(self._path, self._unwritten, self._size)
        except OSError as error:
            _log.warning("%s: not kept on disk for now: %s", self._path, error)
            return
        self._size += len(self._unwritten)
        self._unwritten = b""


def records(data: bytes) -> Iterator[tuple[Record, int]]:
    """Each whole record and where it ends, up to the first that is not whole."""
    at = 0
    while len(data) - at > _HEAD.size:
        size, checksum = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + size
        body = data[at + _HEAD.size : end]
        if not size or len(body) != size or zlib.crc32(body) != checksum:
            return
        yield msgspec.json.decode(body, type=Record), end
        at = end


def _seq(report: msgspec.Raw) -> int:
    return msgspec.json.decode(msgspec.json.decode(report, type=Record)["seq"])


def _write(path: Path, data: bytes, at: int) -> None:
    """From `at` on, in place of whatever an attempt that failed has left there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.truncate(at)
        file.seek(at)
        while data:
            data = data[file.write(data) :]


def _sync(path: Path) -> None:
    try:
        for each in (path, path.parent, path.parent.parent):
            descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        _log.warning("%s: a crash of this machine may lose what was kept: %s", path, error)
