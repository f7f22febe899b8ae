"""What a run writes to stdout and stderr, shown line by line while it is followed."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from gyoza.cli.output import plain

if TYPE_CHECKING:
    from gyoza.client import GyozaClient

LONGEST = 4000
LAST_LINES_S = 5.0
"""How long the end of the log may take once the end of the run is known."""


class Live:
    """The logs of a run's attempts, each followed by a thread of its own. A log that cannot be read is not shown."""

    def __init__(self, client: "GyozaClient", run_id: str, show: Callable[[str], None]):
        self._client, self._run_id, self._show = client, run_id, show
        self._threads: dict[int, threading.Thread] = {}

    def see(self, attempt: int) -> None:
        """It has started."""
        if attempt not in self._threads:
            self._threads[attempt] = threading.Thread(target=self._follow, args=(attempt,), daemon=True)
            self._threads[attempt].start()

    def finish(self) -> None:
        """The run has ended: what is still to come."""
        for thread in self._threads.values():
            thread.join(LAST_LINES_S)

    def _follow(self, attempt: int) -> None:
        import httpx

        with suppress(httpx.HTTPError, RuntimeError):  # RuntimeError: the client was closed, by Ctrl-C
            for line in lines(self._client.follow_logs(self._run_id, attempt)):
                self._show(f"          | {plain(line)}")


def lines(parts: Iterable[bytes]) -> Iterator[str]:
    """As a terminal would show them in the end; of a line that is very long, a part."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from map(_shown, whole)
        rest = rest[-LONGEST * 4 :]
    if rest:
        yield _shown(rest)


def _shown(line: bytes) -> str:
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")[:LONGEST]
