"""What goes on for longer than a connection lasts: logs, events, waiting for a run's end.

Both clients share what is not waiting for the network: what to ask for next, after how long a pause, and when to stop.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import httpx

from gyoza.client import calls
from gyoza.client.call import Call, Object
from gyoza.client.errors import GyozaUnreachable, ServerFailed, not_gyoza
from gyoza.client.sse import Message, Parser
from gyoza.models.lifecycle import OpRunState

T = TypeVar("T")
Lost = Callable[[Exception], None]

PATIENCE_S = 30.0
"""For how long a server may be away, say for a restart, before following ends."""
_LASTED_S = 5.0
"""A connection that lasted so long was good, whatever it brought."""
_PROMPT = 0.5
"""An answer that took less of the time that it was given has not waited: whoever asks anew pauses first."""


class Patience:
    """After how long a pause to try again, and when not any more. `ended`: all has come."""

    def __init__(self, lost: Lost | None = None):
        self.ended = False
        self.pause_s = 0.0
        self._lost = lost
        self._begun_at: float | None = None
        self._lost_at: float | None = None

    def lose(self, error: GyozaUnreachable | ServerFailed) -> None:
        """No connection; raises `error` where that has been so for too long."""
        now = time.monotonic()
        lasted = self._begun_at is not None and now - self._begun_at > _LASTED_S
        if self._lost_at is None or lasted:
            self._lost_at = now
            if self._lost is not None:
                self._lost(error)
        if now - self._lost_at > PATIENCE_S:
            raise error
        self._begun_at = None
        self._wait_longer()

    def _found(self) -> None:
        self.pause_s, self._lost_at = 0.0, None

    def _wait_longer(self) -> None:
        self.pause_s = min(max(self.pause_s * 1.5, 0.02), 0.5)


class Following(Patience, ABC, Generic[T]):
    """Where a follower stands."""

    @abstractmethod
    def call(self) -> Call[None]: ...

    def begin(self, response: httpx.Response) -> None:
        """An answer begins that is no refusal."""
        self._begun_at = time.monotonic()
        self._open(response)

    def took(self, data: bytes) -> Iterator[T]:
        """What these bytes say."""
        self._found()
        yield from self._read(data)

    def finish(self) -> None:
        """An answer came to its end, be it the last or not."""
        self._wait_longer()

    @abstractmethod
    def _open(self, response: httpx.Response) -> None: ...

    @abstractmethod
    def _read(self, data: bytes) -> Iterator[T]: ...


class LogFollowing(Following[bytes]):
    def __init__(self, run_id: str, attempt: int | None, offset: int):
        super().__init__()
        self._where = run_id, attempt, offset
        self._last = False

    def call(self) -> Call[None]:
        return calls.stream_logs(*self._where)

    def finish(self) -> None:
        """An answer was the last one only if nothing was to come any more when it began."""
        self.ended = self._last
        super().finish()

    def _open(self, response: httpx.Response) -> None:
        """The attempt is the one of the first answer, also when the run is retried meanwhile."""
        named = response.headers.get("Gyoza-Attempt", "")
        if not named.isdecimal():
            raise not_gyoza(response)
        run_id, _, offset = self._where
        self._where = run_id, int(named), offset
        self._last = response.headers.get("Gyoza-Log-Ended") == "true"

    def _read(self, data: bytes) -> Iterator[bytes]:
        run_id, attempt, offset = self._where
        self._where = run_id, attempt, offset + len(data)
        yield data


class EventFollowing(Following[Object]):
    """`stream`: the first call. A message's id is a number that rises; `key` is where its event has the same."""

    def __init__(self, stream: Call[None], key: str, after: int | None, lost: Lost | None = None):
        super().__init__(lost)
        self._stream, self._key = stream, key
        self._told = after
        self._parser = Parser()

    def call(self) -> Call[None]:
        last = self._parser.last_id
        return replace(self._stream, headers={**self._stream.headers, **({"Last-Event-ID": last} if last else {})})

    def _open(self, response: httpx.Response) -> None:
        """Half a message that broke off is told again. 204: nothing will come any more."""
        self.ended = response.status_code == HTTPStatus.NO_CONTENT
        if not (self.ended or response.headers.get("content-type", "").startswith("text/event-stream")):
            raise not_gyoza(response)
        self._parser = Parser(self._parser.last_id)

    def _read(self, data: bytes) -> Iterator[Object]:
        for message in self._parser.feed(data):
            self.ended = self.ended or message.event == "end"
            yield from self._event(message)

    def _event(self, message: Message) -> Iterator[Object]:
        """What comes twice is told once; messages of other types are for newer clients."""
        event: Any = json.loads(message.data) if message.event == "message" else None
        if event is not None and (self._told is None or event[self._key] > self._told):
            self._told = event[self._key]
            yield event


class Waiting(Patience):
    """For a run's end, `timeout_s` at most; `run` is the run as it was answered last."""

    run: Object

    def __init__(self, run_id: str, timeout_s: float | None):
        super().__init__()
        self._run_id = run_id
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._asked_s = 0.0

    def call(self) -> Call[Object]:
        self._begun_at = time.monotonic()
        left_s = calls.LONGEST_WAIT_S if self._until is None else max(0.0, self._until - self._begun_at)
        self._asked_s = min(left_s, calls.LONGEST_WAIT_S)
        return calls.wait_for_run(self._run_id, self._asked_s)

    def lose(self, error: GyozaUnreachable | ServerFailed) -> None:
        if self._until is not None and time.monotonic() >= self._until:
            raise error
        super().lose(error)

    def answered(self, run: Object) -> None:
        now, begun_at = time.monotonic(), self._begun_at or 0.0
        self.run = run
        self._found()
        self.ended = OpRunState(run["state"]).is_terminal or (self._until is not None and now >= self._until)
        if now - begun_at < self._asked_s * _PROMPT:  # by a server that stops
            self._wait_longer()
