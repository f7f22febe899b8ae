"""Server-sent events, as they are written: what a stream consists of, as bytes.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cached_property

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gyoza.control.feed import Entry
from gyoza.models.lifecycle import OpRunState
from gyoza.server.wire import encode

RETRY = b"retry: 1000\n"
"""How many milliseconds a client waits before it connects anew."""
HEARTBEAT = b": heartbeat\n"
"""Neither ends with an empty line: many a client takes that for an event, one without data."""
_OVERHEAD = 500
_LINES = bytes.maketrans(b"\r\n", b"  ")
"""JSON may be laid out in lines, as a user sent it; a `data:` line would end with the first. Strings have none."""


class EventStream(StreamingResponse):
    """An answer that goes on; what it reads from is closed with it, also when the client has left."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncGenerator[bytes]):
        headers = {"Content-Type": self.media_type, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)


class News:
    """An entry of the feed with its texts, each written once for all who watch."""

    def __init__(self, entry: Entry):
        self.entry = entry

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        event = self.entry.event
        return _OVERHEAD + len(encode(event.msg)) + len(encode(event.payload))

    @cached_property
    def of_run(self) -> bytes:
        """In its run's stream, under its number."""
        return b"id: %d\ndata: %s\n\n" % (self.entry.event.id, self._row)

    @cached_property
    def of_cluster(self) -> bytes:
        """In the stream of all runs, under its position."""
        entry = self.entry
        where = encode({"pos": entry.pos, "run_id": entry.run_id, "op_definition": entry.op_definition})
        return b"id: %d\ndata: %s,%s\n\n" % (entry.pos, where[:-1], self._row[1:])

    @cached_property
    def _row(self) -> bytes:
        return encode({**self.entry.event.to_dict(), "state": self.entry.state}).translate(_LINES)


def position(pos: int) -> bytes:
    """How far the stream is, which a client says when it connects anew, and no event."""
    return b"id: %d\n\n" % pos


def end(state: OpRunState) -> bytes:
    return b"event: end\ndata: %s\n\n" % encode({"state": state})
