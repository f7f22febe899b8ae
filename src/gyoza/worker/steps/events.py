"""What the op says while it runs: the lines of `events.ndjson`, followed, checked and told."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple, cast

from gyoza.models.errors import Malformed
from gyoza.models.run import time_to_wire
from gyoza.models.strictjson import parse
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.redaction import Redactor
from gyoza.worker.reports import Verdict
from gyoza.worker.trust import Untrusted, open_regular
from gyoza.worker.work import Work

FILE = "events.ndjson"
LOOK_S = 0.05
PROGRESS_S = 0.5
"""PROGRESS is told twice a second at most; the newest always gets through in the end."""
MOST_EVENTS = 10_000
"""PROGRESS that a newer one replaced before it was told does not count."""
LONGEST_LINE = 64 * 2**10
_PART = 64 * 2**10
_BATCH = 500

Event = dict[str, Any]


@asynccontextmanager
async def events(work: Work) -> AsyncGenerator[None]:
    """Followed as long as the program runs; what is left is read when it has ended."""
    follower = Follower(work)
    following = asyncio.create_task(follower.follow())
    try:
        yield
    finally:
        following.cancel()
        await to_the_end(_finished(follower, following))


async def _finished(follower: "Follower", following: asyncio.Task[None]) -> None:
    await asyncio.gather(following, return_exceptions=True)
    await follower.finish()


@dataclass(frozen=True)
class Mark:
    """Up to where the events were told: from there a later process of this worker goes on.

    `offset`: in the file; `is_cut`: there the rest of a line begins that was too long. `count`: of events told.
    """

    offset: int = 0
    is_cut: bool = False
    count: int = 0
    is_over: bool = False


class Line(NamedTuple):
    """`end`: where what follows begins. `is_cut`: that is the rest of this line."""

    text: bytes
    end: int
    is_cut: bool = False


class Lines:
    """Bytes cut into lines. Of one that is longer than `LONGEST_LINE` the beginning comes, once, and is as long."""

    def __init__(self, offset: int = 0, *, is_cut: bool = False):
        self._end = offset
        self._rest = b""
        self._skips = is_cut

    def cut(self, data: bytes) -> list[Line]:
        """The lines that these bytes end."""
        *texts, self._rest = (self._rest + data).split(b"\n")
        lines = [line for text in texts if (line := self._ended(text))]
        if self._skips or len(self._rest) > LONGEST_LINE:
            self._end += len(self._rest)
            lines += [] if self._skips else [Line(self._rest, self._end, is_cut=True)]
            self._rest, self._skips = b"", True
        return lines

    def _ended(self, text: bytes) -> Line | None:
        self._end += len(text) + 1
        skipped, self._skips = self._skips, False
        return None if skipped else Line(text, self._end)

    def last(self) -> Line:
        """What no line feed has ended."""
        return Line(self._rest, self._end + len(self._rest), self._skips)


class Follower:
    def __init__(self, work: Work):
        self._work = work
        self._file: int | None = None
        self._mark = work.spool.recall("events", Mark) or Mark()
        self._lines = Lines(self._mark.offset, is_cut=self._mark.is_cut)
        self._count, self._is_over = self._mark.count, self._mark.is_over
        self._ripe: list[tuple[Event, Mark]] = []
        self._progress: tuple[Event, Line] | None = None
        self._progress_at = float("-inf")
        self._telling: set[asyncio.Task[Verdict]] = set()

    async def follow(self) -> None:
        """One report at a time: while the server is away, the events wait in their file."""
        while not self._is_over:
            news = self.look()
            if self._telling:
                await asyncio.wait(self._telling)
            await asyncio.sleep(0 if news else LOOK_S)

    async def finish(self) -> None:
        """The last look: everything to the end, a last line that was not ended, and the newest PROGRESS."""
        try:
            more = True
            while more:
                more = self.look()
                await asyncio.sleep(0)
            self._take(self._lines.last())
            self._let_progress_out()
            self._tell()
        finally:
            if self._file is not None:
                os.close(self._file)

    def look(self) -> bool:
        """Whether there was something new."""
        data = self._read()
        for line in self._lines.cut(data):
            self._take(line)
        if monotonic() - self._progress_at >= PROGRESS_S:
            self._let_progress_out()
        self._tell()
        return bool(data)

    def _read(self) -> bytes:
        try:
            if self._file is None and not self._is_over:
                self._open()
        except Untrusted as error:
            self._is_over = True
            self._say(_error(f"Events cannot be read: {error}"), Line(b"", 0))
        return b"" if self._is_over or self._file is None else os.read(self._file, _PART)

    def _open(self) -> None:
        self._file = open_regular(self._work.io_dir, FILE)
        if self._file is not None:
            os.lseek(self._file, self._mark.offset, os.SEEK_SET)

    def _take(self, line: Line) -> None:
        """PROGRESS is held back, for a newer one or its time; any other event lets it out first."""
        if not line.text.strip():
            return
        event = _event(line.text, self._work.telling.redactor)
        if event["type"] == "PROGRESS":
            self._progress = event, line
        else:
            self._let_progress_out()
            self._say(event, line)

    def _let_progress_out(self) -> None:
        if self._progress is not None:
            self._say(*self._progress)
            self._progress, self._progress_at = None, monotonic()

    def _say(self, event: Event, line: Line) -> None:
        self._count += 1
        if self._count == MOST_EVENTS + 1:
            event = _error(f"The op wrote more than {MOST_EVENTS} events: the rest is dropped")
            self._is_over = True
        if self._count <= MOST_EVENTS + 1:
            self._ripe.append((event, Mark(line.end, line.is_cut, self._count, self._is_over)))

    def _tell(self) -> None:
        """Each report is kept together with the mark behind its last event: told once, whatever is killed between."""
        batches = [self._ripe[start : start + _BATCH] for start in range(0, len(self._ripe), _BATCH)]
        self._telling = {
            self._work.telling.tell(*(event for event, _ in batch), keep={"events": batch[-1][1]}) for batch in batches
        }
        self._ripe = []


def _event(line: bytes, redactor: Redactor) -> Event:
    """The line as an event, or the ERROR that notes what is wrong with it."""
    if len(line) > LONGEST_LINE:
        return _error(f"An event of the op was longer than {LONGEST_LINE} bytes: {_shown(line, redactor)}")
    try:
        said: Any = parse(line)
    except Malformed as error:
        return _error(f"A line of {FILE} is refused ({error.detail}): {_shown(line, redactor)}")
    members = cast(dict[str, Any], said) if isinstance(said, dict) else {}
    kind, msg = members.get("type"), members.get("msg")
    if kind == "PROGRESS" and isinstance(msg, int) and not isinstance(msg, bool) and 0 <= msg <= 100:
        return _now({"type": kind, "msg": msg})
    if kind == "INFO" and isinstance(msg, str):
        return _now({"type": kind, "msg": msg})
    allowed = '{"type": "PROGRESS", "msg": 0 to 100} and INFO with a text'
    return _error(f"The op may write {allowed}, not {_shown(line, redactor)}")


def _error(msg: str) -> Event:
    return _now({"type": "ERROR", "msg": msg})


def _now(event: Event) -> Event:
    return {**event, "at": time_to_wire(datetime.now(UTC))}


def _shown(line: bytes, redactor: Redactor) -> str:
    """Its beginning; cut only once no secret can be cut in two."""
    return json.dumps(redactor.whole(line.decode(errors="replace"))[:200])
