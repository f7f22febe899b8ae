"""A client's way to an application in this process, over which answers can go on, as over a socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

import httpx

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

AHEAD = 4
"""How many messages the application may be ahead of who reads them: a socket has some room too."""


class InProcess(httpx.AsyncBaseTransport):
    """What the application raises is its own affair, as over a socket: it answers 500, or its answer breaks off."""

    def __init__(self, app: App):
        self.app = app
        self.answering: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = Exchange(await request.aread())
        exchange.task = asyncio.create_task(exchange.run(self.app, scope_of(request)))
        self.answering.add(exchange.task)
        exchange.task.add_done_callback(self.answering.discard)
        start = await exchange.messages.get()
        if start is None:
            raise httpx.RemoteProtocolError("no answer", request=request)
        return httpx.Response(start["status"], headers=start["headers"], stream=exchange)


def scope_of(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 123),
        "root_path": "",
    }


class Exchange(httpx.AsyncByteStream):
    def __init__(self, body: bytes):
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue(AHEAD)
        self.task: asyncio.Task[None]
        self._body: bytes | None = body
        self._left = asyncio.Event()

    async def run(self, app: App, scope: dict[str, Any]) -> None:
        with suppress(Exception):
            await app(scope, self._receive, self._send)
        if not self._left.is_set():
            await self.messages.put(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.messages.get()) is not None:
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        """The client has left; what the application still says is heard by nobody."""
        self._left.set()
        while not self.task.done():
            while not self.messages.empty():
                self.messages.get_nowait()
            await asyncio.wait([self.task], timeout=0.01)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._left.is_set():
            await self.messages.put(message)
