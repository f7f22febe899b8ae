"""Those who watch: a stream of server-sent events as a client sees it, read by the letter of its specification.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from .actors import Json, say, told

PATIENCE_S = 20


@dataclass(frozen=True)
class Told:
    """One dispatched event; `last_id` is what an EventSource would send when it connects anew."""

    type: str
    data: str
    last_id: str

    @property
    def json(self) -> Json:
        return json.loads(self.data)


class Interpreter:
    """Takes characters, one line after the other; `comments`, `retry` and `last_id` are what was said so far."""

    def __init__(self) -> None:
        self.last_id, self.retry, self.comments = "", None, list[str]()
        self._text, self._id = "", ""
        self._data, self._type = "", ""

    def read(self, text: str) -> list[Told]:
        self._text += text
        told: list[Told] = []
        while (end := re.search("\r\n|\n|\r", self._text)) is not None:
            line, self._text = self._text[: end.start()], self._text[end.end() :]
            told += self._line(line)
        return told

    def _line(self, line: str) -> list[Told]:
        if line == "":
            return self._dispatch()
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "" and colon:
            self.comments.append(value)
        elif name == "data":
            self._data += value + "\n"
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry = int(value)
        else:
            raise AssertionError(f"nobody would understand {line!r}")
        return []

    def _dispatch(self) -> list[Told]:
        self.last_id = self._id
        data, kind = self._data, self._type
        self._data = self._type = ""
        return [Told(kind or "message", data.removesuffix("\n"), self.last_id)] if data else []


class Stream:
    def __init__(self, answer: httpx.Response):
        self.answer = answer
        self.said = Interpreter()
        self._told: list[Told] = []
        self._chunks = aiter(answer.aiter_bytes())

    def __aiter__(self) -> AsyncIterator[Told]:
        return self

    async def __anext__(self) -> Told:
        while not self._told:
            await self.hear()
        return self._told.pop(0)

    async def hear(self) -> None:
        """Read on, be it only a heartbeat; raises StopAsyncIteration at the end."""
        self._told += self.said.read((await anext(self._chunks)).decode())

    async def take(self, number: int) -> list[Told]:
        """The next so many."""
        async with asyncio.timeout(PATIENCE_S):
            return [await anext(self) for _ in range(number)]

    async def rest(self) -> list[Told]:
        """Everything up to its end."""
        async with asyncio.timeout(PATIENCE_S):
            return [told async for told in self]

    async def beats(self, number: int = 1) -> None:
        """Until it has said so often that it lives."""
        until = self.said.comments.count("heartbeat") + number
        async with asyncio.timeout(PATIENCE_S):
            while self.said.comments.count("heartbeat") < until:
                await self.hear()


@asynccontextmanager
async def watching(
    api: httpx.AsyncClient, path: str, last_id: str | int | None = None, **params: Any
) -> AsyncIterator[Stream]:
    headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    async with api.stream("GET", path, params=params, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Stream(answer)


def rows(told: list[Told]) -> list[Json]:
    return [each.json for each in told if each.type == "message"]


def path_of(run: Json) -> str:
    return f"/runs/{run['id']}/events/stream"


async def ids(stream: Stream, number: int) -> list[int]:
    """The numbers of the next so many events."""
    return [row["id"] for row in rows(await stream.take(number))]


async def noted(api: httpx.AsyncClient, run: Json, *msgs: str) -> None:
    for msg in msgs:
        told(await say(api, run, "INFO", msg))
