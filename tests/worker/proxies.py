"""A socket in front of Docker's, whose connections a test can cut."""

import asyncio
from collections.abc import Callable
from pathlib import Path


class Proxy:
    """Listens at `path`, and passes on to `target` what is said there. `cut` breaks what is open."""

    def __init__(self, path: Path, target: str = "/var/run/docker.sock"):
        self.path, self._target = path, target
        self._open: set[asyncio.StreamWriter] = set()
        self.is_down = False
        self.holds = False
        """Nobody is told any more that the other side has closed a connection."""
        self.served = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.transport.abort()
            return
        self.served += 1
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        mine = {writer, far_writer}
        self._open |= mine
        try:
            await asyncio.gather(_pass(reader, far_writer), self._answer(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in mine:
                each.transport.abort()
            self._open -= mine

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _pass(reader, writer, closes=lambda: not self.holds)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, closes: Callable[[], bool] = lambda: True
) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    if closes():
        writer.close()
