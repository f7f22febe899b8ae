"""Whether a worker's loops go round: each says so at every turn, and one that is silent for too long is stuck."""

from collections.abc import Callable
from time import monotonic

TICK_S = 1.0
STUCK_S = 10.0
"""Longer than anything that may hold up the event loop on a busy machine."""
TRY_S = 90.0
"""Longer than a request that nobody answers and the pause after it: a server that is away makes no loop stuck."""


class Pulse:
    """Written by the event loop, read by other threads. `clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = monotonic):
        self._clock = clock
        self._due: dict[str, tuple[float, float]] = {}

    def turn(self, loop: str, within_s: float) -> None:
        """The loop goes round, and will again within so many seconds."""
        now = self._clock()
        self._due[loop] = (now, now + within_s)

    def stuck(self) -> list[str]:
        """A sentence for each loop that should have gone round since; none: all is well."""
        now = self._clock()
        late = [(loop, now - last) for loop, (last, due) in tuple(self._due.items()) if now > due]
        return [f"{loop} stood still for {silent_s:.0f} s" for loop, silent_s in late]
