"""Server-sent events, as they are read: bytes in, messages out, however they are cut. Nothing here touches the network.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_END_OF_LINE = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)
"""A CR that comes last may be half of an end: it is left for what comes next."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Message:
    event: str
    data: str


class Parser:
    """`last_id`: what to send when connecting anew, None before the server has said anything about it."""

    def __init__(self, last_id: str | None = None):
        self.last_id = last_id
        self._id = last_id
        self._rest = b""
        self._begun = False
        self._clear()

    def feed(self, chunk: bytes) -> Iterator[Message]:
        *lines, self._rest = _END_OF_LINE.split(self._rest + chunk)
        for line in lines:
            if not self._begun:
                line, self._begun = line.removeprefix(_BOM), True
            if not line:
                yield from self._dispatch()
            elif not line.startswith(b":"):
                self._field(*_name_and_value(line.decode(errors="replace")))

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> Iterator[Message]:
        """An id alone counts too: it says how far a stream is that had nothing to tell."""
        self.last_id = self._id
        message = Message(self._event or "message", "\n".join(self._data))
        told = bool(self._data)
        self._clear()
        if told:
            yield message

    def _clear(self) -> None:
        self._event = ""
        self._data: list[str] = []


def _name_and_value(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")
