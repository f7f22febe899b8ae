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
from gyoza.worker.engines.confinement import RECORD_BYTES
from gyoza.worker.engines.dockerd import TROUBLE, is_away
from gyoza.worker.engines.frames import STDERR, STDOUT, Frames
from gyoza.worker.engines.log import Log
from gyoza.worker.engines.marks import Entry, Mark, Search

LOOK_S = 0.5
LAST_BYTES_S = 10.0
"""How long the stream of a container that has ended, or was removed at once, may be silent and not end."""
LAST_READ_S = 60.0
"""How long the record of a container that has ended is tried to be read."""
ENTRY_BYTES = 48
"""About how many bytes of the record a line takes besides its own."""
MARK_BYTES = RECORD_BYTES // 2
STALE_BYTES = RECORD_BYTES * 3 // 4
"""A mark that is so far behind may be gone, or will be before it is looked for."""
_TORN = "Docker was out of reach, and wrote over its record meanwhile: bytes are missing here, or stand twice"
_UNREAD = "Docker's record of this output could not be read: bytes may be missing here"

_log = logging.getLogger(__name__)


class Recording:
    """Of one container, by name. `attach` comes before its start; `resume`, where an earlier process did that."""

    def __init__(self, client: aiodocker.Docker, container: str, log: Log):
        self._client, self._container, self._log = client, container, log
        self._mark = Mark.from_dict(log.mark) if log.mark else Mark()
        self._weight = self._weight_at_mark = 0
        self._is_far = asyncio.Event()
        """So much came since the mark that another is wanted."""
        self._has_ended = asyncio.Event()
        self._live: aiohttp.ClientResponse | None = None
        self._task: asyncio.Task[None] | None = None

    async def attach(self) -> None:
        """Be connected before the first byte. Where the engine does not let us, its record will do."""
        with suppress(*TROUBLE):
            self._live = await dockerd.attach(self._client, self._container)
        self._task = asyncio.create_task(self._record())

    def resume(self) -> None:
        """Go on where the log ends."""
        self._task = asyncio.create_task(self._record())

    async def finish(self) -> None:
        """The engine says that the container has ended: wait for what is left of its output."""
        self._has_ended.set()
        if self._task is None:
            return
        came, is_silent = self._weight, False
        while not self._task.done() and not is_silent:
            await asyncio.wait({self._task}, timeout=LAST_BYTES_S)
            came, is_silent = self._weight, came == self._weight
        if self._live is not None:
            self._live.close()
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

    async def _record(self) -> None:
        if self._live is not None:
            with closing(self._live), suppress(*TROUBLE):
                await self._listen(self._live.content)
        if not await self._is_known_to_be_whole():
            await self._read_to_the_end()
        self._log.end()

    async def _listen(self, stream: aiohttp.StreamReader) -> None:
        frames, marking = Frames(), asyncio.create_task(self._set_marks())
        try:
            while data := await stream.readany():
                pieces = frames.cut(data)
                self._log.write(pieces)
                self._weight += sum(len(piece) + ENTRY_BYTES * (1 + piece.count(b"\n")) for _, piece in pieces)
                if self._weight - self._weight_at_mark > MARK_BYTES:
                    self._is_far.set()
        finally:
            marking.cancel()
            await asyncio.gather(marking, return_exceptions=True)

    async def _set_marks(self) -> None:
        """Beside the listening, and with pauses, since the engine may take long to go through its record."""
        while not self._log.is_full:
            await self._is_far.wait()
            weight, began = self._weight, monotonic()
            with suppress(DockerError, *TROUBLE):
                await self._pass_by_what_came()
                self._weight_at_mark = weight
                self._is_far.clear()
            self._log.keep(self._mark.to_dict())
            await asyncio.sleep(max(LOOK_S, 3 * (monotonic() - began)))

    async def _is_known_to_be_whole(self) -> bool:
        """Of a stream without a near mark the end is taken at its word, where the container ends with it."""
        if self._weight - self._weight_at_mark < STALE_BYTES:
            return False
        await self._ended_within(LAST_BYTES_S)
        return self._has_ended.is_set()

    async def _pass_by_what_came(self) -> None:
        """Move the mark behind all entries of which every byte came already."""
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
