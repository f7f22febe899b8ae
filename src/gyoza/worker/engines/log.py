"""What an op writes to stdout and stderr, in a file of this worker: byte N of it is byte N of the server's log."""

import asyncio
import json
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

LIMIT = 64 * 2**20
END = 16 * 2**10
"""Of what does not fit, so many last bytes are kept: they often say why the op ended."""
_NOTES = 512
"""Bytes left free for what the worker itself says in the log."""
_STATE = 1024
_FULL = b"\n[gyoza: the log is full: what comes now is left out, but for its end]\n"
_LEFT_OUT = "\n[gyoza: {} bytes were left out here]\n"

Pieces = Iterable[tuple[int, bytes]]


class Filter(Protocol):
    """What a stream's bytes go through before they are kept. `held`: how many of them it holds back just now."""

    @property
    def held(self) -> int: ...
    def feed(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class Plain:
    """A filter that lets everything through."""

    held = 0

    def feed(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class Log:
    """The file grows up to `limit` bytes; then only the end of what comes is kept, in memory, and added in the end.

    A small state beside the file says how many bytes of each stream are in it: by that a later process of this
    worker goes on where this one stopped (`goes_on`). It is written after the bytes, in one piece: whenever this
    process is killed, the two agree on everything up to `size`, and nothing beyond `size` is shown to anybody.
    """

    def __init__(
        self,
        path: Path,
        *,
        limit: int = LIMIT,
        new_filter: Callable[[], Filter] = Plain,
        goes_on: bool = False,
    ):
        self._limit = max(limit - END - _NOTES, 0)
        self._filters: dict[int, Filter] = {}
        self._new_filter = new_filter
        self._fed: dict[int, int] = {}
        self._end = b""
        self.left_out = 0
        """Bytes that found no room; the last of them may still be added."""
        self.size = 0
        self.mark: Any = None
        """What the engine that writes it wanted to keep beside it."""
        self.is_full = False
        self.grew = asyncio.Event()
        """Set whenever there is more to read, and in the end; whoever reads clears it."""
        self.over = asyncio.Event()
        """Set when nothing will be added any more."""
        kept = _kept(_state_of(path)) if goes_on else None
        self._file = _opened(path)
        self._state = _opened(_state_of(path))
        if kept is not None:
            self._go_on(kept)
        os.ftruncate(self._file, self.size)
        self._keep_state()

    def _go_on(self, kept: dict[str, Any]) -> None:
        self.size, self.left_out, self.mark = kept["size"], kept["left_out"], kept["mark"]
        self.is_full = self.left_out > 0
        self._fed = {int(stream): count for stream, count in kept["fed"].items()}

    def fed(self, stream: int) -> int:
        """How many bytes of this stream came: they are in the file, held back or left out."""
        return self._fed.get(stream, 0)

    def keep(self, mark: Any) -> None:
        """JSON, for a later process. Not while bytes are held back, which that would not have."""
        if not any(each.held for each in self._filters.values()):
            self.mark = mark
            self._keep_state()

    def write(self, pieces: Pieces) -> None:
        """Add the bytes of these streams, in their order."""
        fresh: list[bytes] = []
        for stream, data in pieces:
            self._fed[stream] = self._fed.get(stream, 0) + len(data)
            fresh.append(self._filter(stream).feed(data))
        self._add(b"".join(fresh))
        self._shown()

    def note(self, text: str) -> None:
        """A line of the worker's own."""
        self._add(f"\n[gyoza: {text}]\n".encode())
        self._shown()

    def stop_growing(self) -> None:
        """Whoever reads it takes no more."""
        self.is_full = True

    def end(self) -> None:
        """Nothing will be written any more: what was held back, and the end of what was left out, is added."""
        if self.over.is_set():
            return
        self._add(b"".join(each.flush() for each in self._filters.values()))
        missing = self.left_out - len(self._end)
        if missing > 0:
            self._put(_LEFT_OUT.format(missing).encode())
        self._put(self._end)
        self._end = b""
        self.over.set()
        self._shown()

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, min(size, max(self.size - offset, 0)), offset)

    def tail(self, size: int) -> str:
        """The last `size` characters; undecodable bytes are shown as U+FFFD."""
        data = (self.read(max(self.size - 4 * size, 0), 4 * size) + self._end)[-4 * size :]
        return data.decode("utf-8", "replace")[-size:] if size > 0 else ""

    def close(self) -> None:
        os.close(self._file)
        os.close(self._state)

    def _filter(self, stream: int) -> Filter:
        """One for each stream: what is one text in a stream may be torn apart where two are mixed."""
        return self._filters.setdefault(stream, self._new_filter())

    def _add(self, data: bytes) -> None:
        room = 0 if self.is_full else max(self._limit - self.size, 0)
        kept = self._put(data[:room])
        if kept < len(data):
            self._leave_out(data[kept:])

    def _leave_out(self, data: bytes) -> None:
        self.is_full = True
        if self.left_out <= END < self.left_out + len(data):
            self._put(_FULL)
        self.left_out += len(data)
        self._end = (self._end + data)[-END:]

    def _put(self, data: bytes) -> int:
        """How many of them are in the file now: not all where the disk is full. A log is not worth its run."""
        try:
            done = os.pwrite(self._file, data, self.size)
        except OSError:
            done = 0
        self.size += done
        return done

    def _shown(self) -> None:
        self._keep_state()
        self.grew.set()

    def _keep_state(self) -> None:
        fed = {stream: count - self._filter(stream).held for stream, count in self._fed.items()}
        state = {"size": self.size, "fed": fed, "left_out": self.left_out, "mark": self.mark}
        try:
            os.pwrite(self._state, json.dumps(state).ljust(_STATE).encode(), 0)
        except OSError:
            return  # the disk is full: a later process would take the last bytes from the engine again


@contextmanager
def kept_in(log: Log | None, folder: Path) -> Generator[Log]:
    """The log that is given, or one in this folder for as long as this is entered."""
    if log is not None:
        yield log
        return
    with closing(Log(folder / "log")) as own:
        yield own


def _state_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.state")


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _kept(path: Path) -> dict[str, Any] | None:
    """None where an earlier process left no state."""
    try:
        return json.loads(path.read_bytes() or b"null")
    except FileNotFoundError:
        return None
