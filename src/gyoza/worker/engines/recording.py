"""A container's output, from its first byte to its last, into its log.

As long as the connection to the engine lasts, the bytes come over it as they are written, and no others are asked for
(`attach`). When it ends, or is lost, the engine's own record is read, as often as it takes: what is there beyond the
bytes that came already is added. The record keeps a bounded number of bytes. To find one's place in it also when its
oldest part is gone, a mark is set now and then: behind entries that came already, by their time and number.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing, suppress
from time import monotonic

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from gyoza.worker.engines import dockerd
from gyoza.worker.engines.container import RECORD_BYTES
from gyoza.worker.engines.dockerd import TROUBLE, is_away
from gyoza.worker.engines.frames import STDERR, STDOUT, Frames
from gyoza.worker.engines.log import Log
from gyoza.worker.engines.marks import Entry, Mark, Search

LOOK_S = 0.5
LAST_BYTES_S = 5.0
"""How long the last bytes of a container that was removed at once may take."""
LAST_READ_S = 60.0
"""How long the record of a container that has ended is tried to be read."""
ENTRY_BYTES = 48
"""About how many bytes of the record a line takes besides its own."""
MARK_BYTES = RECORD_BYTES // 2
_TORN = "Docker was out of reach, and wrote over its record meanwhile: bytes are missing here, or stand twice"
_UNREAD = "Docker's record of this output could not be read: bytes may be missing here"

_log = logging.getLogger(__name__)


class Recording:
    """Of one container, by name. `attach` comes before its start; `resume`, where an earlier process did that."""

    def __init__(self, client: aiodocker.Docker, container: str, log: Log):
        self._client, self._container, self._log = client, container, log
        self._mark = Mark.from_dict(log.mark) if log.mark else Mark()
        self._since_mark = 0
        self._has_ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def attach(self) -> None:
        """Be connected before the first byte. Where the engine does not let us, its record will do."""
        live = None
        with suppress(*TROUBLE):
            live = await dockerd.attach(self._client, self._container)
        self._task = asyncio.create_task(self._record(live))

    def resume(self) -> None:
        """Go on where the log ends."""
        self._task = asyncio.create_task(self._record(None))

    async def finish(self) -> None:
        """The engine says that the container has ended: wait for what is left of its output."""
        self._has_ended.set()
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self, within_s: float = LAST_BYTES_S) -> None:
        """The container is gone; what is still under way of its output is waited for."""
        self._has_ended.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=within_s)
        await self.abandon()
        self._log.end()

    async def abandon(self) -> None:
        """Ask the engine nothing more. The log is left as it is: a later process may go on with it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _record(self, live: aiohttp.ClientResponse | None) -> None:
        if live is not None:
            with closing(live), suppress(DockerError, *TROUBLE):
                await self._listen(live.content)
        await self._read_to_the_end()
        self._log.end()

    async def _listen(self, stream: aiohttp.StreamReader) -> None:
        frames = Frames()
        while data := await stream.readany():
            pieces = frames.cut(data)
            self._log.write(pieces)
            self._since_mark += sum(len(piece) + ENTRY_BYTES * (1 + piece.count(b"\n")) for _, piece in pieces)
            if self._since_mark > MARK_BYTES and not self._log.is_full:
                await self._set_mark()

    async def _set_mark(self) -> None:
        """Behind all entries of which every byte came already."""
        self._since_mark = 0
        with suppress(DockerError, *TROUBLE):
            await self._pass_by_what_came()
        self._log.keep(self._mark.to_dict())

    async def _pass_by_what_came(self) -> None:
        search = Search(self._mark)
        async with aclosing(self._entries()) as batches:
            async for entry in (entry async for entries in batches for entry in entries):
                if search.skips(entry):
                    continue
                if self._mark.end_of(entry) > self._log.fed(entry.stream):
                    return
                self._mark.pass_by(entry)

    async def _read_to_the_end(self) -> None:
        """Of a log that is full only the end is kept any more: its place in the record is not looked for."""
        pause_s, give_up_at = LOOK_S, float("inf")
        while not self._log.is_full:
            await self._ended_within(pause_s)
            has_ended, began = self._has_ended.is_set(), monotonic()
            give_up_at = min(give_up_at, began + LAST_READ_S) if has_ended else give_up_at
            if await self._has_read() and has_ended:
                return
            if monotonic() > give_up_at:
                self._log.note(_UNREAD)
                return
            pause_s = max(LOOK_S, 4 * (monotonic() - began))
            if has_ended:
                await asyncio.sleep(LOOK_S)

    async def _has_read(self) -> bool:
        """Whether the record was read to its end; that nobody has it any more is one."""
        try:
            return await self._read_record()
        except (DockerError, *TROUBLE) as error:
            if not is_away(error):
                return True
            _log.warning("cannot read the output of container %s: %s", self._container, dockerd.why(error))
            return False

    async def _read_record(self) -> bool:
        """Add what is there beyond the bytes that came already; whether the place of the mark was found."""
        search, unmarked, weight = Search(self._mark), self._mark == Mark(), 0
        async with aclosing(self._entries()) as batches:
            async for entries in batches:
                fresh = [self._fresh(entry) for entry in entries if not search.skips(entry)]
                self._log.write(piece for piece in fresh if piece[1])
                self._log.keep(self._mark.to_dict())
                weight += sum(len(entry.data) + ENTRY_BYTES for entry in entries)
        if not search.is_over:
            self._mark = Mark(bytes={stream: self._log.fed(stream) for stream in (STDOUT, STDERR)})
        if not search.is_over or (unmarked and weight > RECORD_BYTES):
            self._log.note(_TORN)
        return search.is_over

    def _fresh(self, entry: Entry) -> tuple[int, bytes]:
        """What of the entry has not come yet; the mark moves behind it."""
        known = self._log.fed(entry.stream) - self._mark.end_of(entry) + len(entry.data)
        self._mark.pass_by(entry)
        return entry.stream, entry.data[max(known, 0) :]

    async def _entries(self) -> AsyncGenerator[list[Entry]]:
        """The record from the mark on, in batches as they arrive."""
        frames = Frames()
        async with dockerd.record(self._client, self._container, self._mark.since) as content:
            while data := await content.readany():
                try:
                    yield [Entry.of(*frame) for frame in frames.cut(data)]
                except ValueError as error:  # no entry, but what the engine has to say about one
                    raise DockerError(500, f"the record is broken: {error}") from error

    async def _ended_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_ended.wait()
