"""What the op says while it runs: the lines of `events.ndjson`, followed, checked and told."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any, cast

from gyoza.models.errors import Malformed
from gyoza.models.run import time_to_wire
from gyoza.models.strictjson import parse
from gyoza.worker.trust import Untrusted, open_regular
from gyoza.worker.work import Work

FILE = "events.ndjson"
LOOK_S = 0.05
PROGRESS_S = 0.5
"""PROGRESS is told twice a second at most; the newest always gets through in the end."""
MOST_EVENTS = 10_000
LONGEST_LINE = 64 * 2**10
_PART = 256 * 2**10
_BATCH = 500


@asynccontextmanager
async def events(work: Work) -> AsyncGenerator[None]:
    """Followed as long as the program runs; what is left is read when it has ended."""
    follower = Follower(work)
    following = asyncio.create_task(follower.follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        follower.finish()


class Follower:
    def __init__(self, work: Work):
        self._work = work
        self._file: int | None = None
        self._rest = b""
        self._count = 0
        self._progress: dict[str, Any] | None = None
        self._progress_told = float("-inf")
        self._broken = False

    async def follow(self) -> None:
        while not self._broken:
            self.look()
            await asyncio.sleep(LOOK_S)

    def finish(self) -> None:
        """The last look: everything to the end, the newest PROGRESS, and a last line that was not ended."""
        while self.look():
            pass
        if self._rest:
            self._tell(list(self._read([self._rest])))
        if self._progress is not None:
            self._tell([self._progress])
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def look(self) -> bool:
        """Whether there was something new."""
        try:
            if self._file is None and not self._broken:
                self._file = open_regular(self._work.io_dir, FILE)
        except Untrusted as error:
            self._broken = True
            self._tell([_error(f"Events cannot be read: {error}")])
        data = os.read(self._file, _PART) if self._file is not None else b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        told = list(self._read(lines))
        for start in range(0, len(told), _BATCH):
            self._tell(told[start : start + _BATCH])
        if self._progress is not None and monotonic() - self._progress_told >= PROGRESS_S:
            self._tell([self._progress])
        return bool(data)

    def _read(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        """The events of these lines. PROGRESS is held back while one was told just now; any other lets it out first."""
        for line in lines:
            if not line.strip() or self._count > MOST_EVENTS:
                continue
            self._count += 1
            if self._count > MOST_EVENTS:
                yield _error(f"The op wrote more than {MOST_EVENTS} events: the rest is dropped")
                return
            event = _event(line)
            if event["type"] == "PROGRESS":
                self._progress = event
                continue
            if self._progress is not None:
                yield self._progress
                self._progress = None
            yield event

    def _tell(self, told: list[dict[str, Any]]) -> None:
        if not told:
            return
        if told[-1] is self._progress:
            self._progress = None
        if any(event["type"] == "PROGRESS" for event in told):
            self._progress_told = monotonic()
        self._work.telling.tell(*told)


def _event(line: bytes) -> dict[str, Any]:
    """The line as an event, or the ERROR that notes what is wrong with it."""
    if len(line) > LONGEST_LINE:
        return _error(f"An event of the op was longer than {LONGEST_LINE} bytes: {_shown(line)}")
    try:
        said: Any = parse(line)
    except Malformed as error:
        return _error(f"A line of {FILE} is refused ({error.detail}): {_shown(line)}")
    members = cast(dict[str, Any], said) if isinstance(said, dict) else {}
    kind, msg = members.get("type"), members.get("msg")
    if kind == "PROGRESS" and isinstance(msg, int) and not isinstance(msg, bool) and 0 <= msg <= 100:
        return _now({"type": kind, "msg": msg})
    if kind == "INFO" and isinstance(msg, str):
        return _now({"type": kind, "msg": msg})
    return _error(f'The op may write {{"type": "PROGRESS", "msg": 0 to 100}} and INFO with a text, not {_shown(line)}')


def _error(msg: str) -> dict[str, Any]:
    return _now({"type": "ERROR", "msg": msg})


def _now(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "at": time_to_wire(datetime.now(UTC))}


def _shown(line: bytes) -> str:
    return json.dumps(line[:200].decode(errors="replace"))
