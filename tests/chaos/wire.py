"""The network between a worker and its server, in the test's hand: it can be cut, held up, slowed, and lose answers."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """A loop of its own, in a thread, for a test that is not asynchronous."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T], within_s: float = 60) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)

    def end(self) -> None:
        self.do(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Wire:
    """From a port of its own to `server_port`, both on this machine."""

    def __init__(self, server_port: int):
        self.port = 0
        self.is_cut = False
        self.loses_answers = False
        self.delay_s = 0.0
        self._server_port = server_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._listening.close()
        await self.cut()

    async def cut(self) -> None:
        self.is_cut = True
        for end in self._ends:
            end.transport.abort()

    async def hold_up(self) -> None:
        """Connections stay, nothing comes through; what was said meanwhile arrives later."""
        self._flows.clear()

    async def mend(self) -> None:
        self.is_cut = self.loses_answers = False
        self.delay_s = 0.0
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        try:
            if not self.is_cut:
                there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
                ends.add(back)
                self._ends |= ends
                await asyncio.gather(self._ask(reader, back), self._answer(there, writer))
        except OSError:
            pass  # one side is gone; so is the other now
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            await self._pass(data, writer)
        with suppress(OSError):
            writer.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if self.loses_answers:
                raise ConnectionResetError
            await self._pass(data, writer)
        writer.transport.abort()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        writer.write(data)
        await writer.drain()
