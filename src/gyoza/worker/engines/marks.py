"""Finding one's place in the engine's own record of a container's output, of which the oldest part may be gone. No I/O.

The record is a list of entries, each with its stream and the time at which it was written. Entries of one time are
told apart by counting them. The parts of a long line all bear the time of the first, so times may go back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

SLACK_NS = 2 * 10**8
"""Two streams are written side by side: an entry may get its time, and another its place before it."""


class Entry(NamedTuple):
    """`at`: nanoseconds since 1970."""

    stream: int
    at: int
    data: bytes

    @classmethod
    def of(cls, stream: int, frame: bytes) -> "Entry":
        """From a frame that was asked for with its time: `2026-02-03T04:05:06.000000007Z data`."""
        time, _, data = frame.partition(b" ")
        return cls(stream, _seconds(time[:19] + time[29:]) * 10**9 + int(time[20:29]), data)


@lru_cache(maxsize=64)
def _seconds(time: bytes) -> int:
    """There may be a million entries a second."""
    return int(datetime.fromisoformat(time.decode()).timestamp())


@dataclass
class Mark:
    """A place in the record: behind the last entry of `stream`, 0 where the record begins.

    `newest`: by stream, the time of its last entry before this place, and how many entries of the stream have that
    time. `bytes`: by stream, how many there are before this place.
    """

    stream: int = 0
    newest: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    bytes: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def since(self) -> int | None:
        """No entry behind this place is older, unless the clock was set back."""
        oldest = min((at for at, _ in self.newest.values()), default=None)
        return None if oldest is None else max(oldest - SLACK_NS, 0)

    def end_of(self, entry: Entry) -> int:
        """How many bytes its stream has with the entry that follows."""
        return self.bytes.get(entry.stream, 0) + len(entry.data)

    def pass_by(self, entry: Entry) -> None:
        """Move behind the entry that follows."""
        at, count = self.newest.get(entry.stream, (entry.at, 0))
        self.bytes[entry.stream] = self.end_of(entry)
        self.newest[entry.stream] = entry.at, count + 1 if at == entry.at else 1
        self.stream = entry.stream

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        newest = [[stream, at, count] for stream, (at, count) in self.newest.items()]
        return {"stream": self.stream, "newest": newest, "bytes": list(self.bytes.items())}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Mark":
        newest = {stream: (at, count) for stream, at, count in data["newest"]}
        return cls(data["stream"], newest, dict(data["bytes"]))


class Search:
    """For the place of a mark, among the entries from `mark.since` on."""

    def __init__(self, mark: Mark):
        self._stream = mark.stream
        self._at, self._left = mark.newest.get(mark.stream, (0, 0))

    @property
    def is_over(self) -> bool:
        return self._left == 0

    def skips(self, entry: Entry) -> bool:
        """Whether this entry is before the place."""
        if self.is_over:
            return False
        self._left -= (entry.stream, entry.at) == (self._stream, self._at)
        return True
