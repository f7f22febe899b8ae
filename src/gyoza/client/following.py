"""Following a log over as many connections as it takes; both clients share what is not waiting for the network."""

import time
from dataclasses import dataclass

import httpx

from gyoza.client import calls
from gyoza.client.call import Call
from gyoza.client.errors import GyozaUnreachable, ServerFailed, not_gyoza

PATIENCE_S = 30.0
"""For how long a server may be away, say for a restart, before following ends."""
_LASTED_S = 5.0
"""A connection that lasted so long was good, whatever it brought."""


@dataclass
class Following:
    """Where a follower stands: what it asks for next, after how long a pause, and whether all has come."""

    run_id: str
    attempt: int | None
    offset: int
    ended: bool = False
    pause_s: float = 0.0
    _last: bool = False
    _begun_at: float | None = None
    _lost_at: float | None = None

    def call(self) -> Call[None]:
        return calls.stream_logs(self.run_id, self.attempt, self.offset)

    def begin(self, response: httpx.Response) -> None:
        """The attempt is the one of the first answer, also when the run is retried meanwhile."""
        named = response.headers.get("Gyoza-Attempt", "")
        if not named.isdecimal():
            raise not_gyoza(response)
        self.attempt = int(named)
        self._last = response.headers.get("Gyoza-Log-Ended") == "true"
        self._begun_at = time.monotonic()

    def took(self, data: bytes) -> bytes:
        self.offset += len(data)
        self.pause_s, self._lost_at = 0.0, None
        return data

    def finish(self) -> None:
        """An answer came to its end. It was the last one only if nothing was to come any more when it began."""
        self.ended = self._last
        self._wait_longer()

    def lose(self, error: GyozaUnreachable | ServerFailed) -> None:
        """No connection; raises `error` where that has been so for too long."""
        now = time.monotonic()
        lasted = self._begun_at is not None and now - self._begun_at > _LASTED_S
        if self._lost_at is None or lasted:
            self._lost_at = now
        if now - self._lost_at > PATIENCE_S:
            raise error
        self._begun_at = None
        self._wait_longer()

    def _wait_longer(self) -> None:
        self.pause_s = min(max(self.pause_s * 1.5, 0.02), 0.5)
