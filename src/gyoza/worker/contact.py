"""For how long the server has not been heard."""

import asyncio
from time import monotonic


class Contact:
    """`lease_s`: after so much silence a server takes a worker for lost, as it said itself."""

    def __init__(self, lease_s: float = 20.0):
        self.lease_s = lease_s
        self._at = monotonic()

    def heard(self, asked_at: float, lease_s: float) -> None:
        """An answer came to what was asked at that moment: the server counts from then on, or later."""
        self._at, self.lease_s = asked_at, lease_s

    async def lost(self, patience_s: float | None) -> float:
        """Until nothing was heard from now on for so long, and for the lease at least: how long that was.

        From now on: an attempt that was handed over is word of the server, too, be no heartbeat answered yet.
        """
        since = monotonic()
        while True:
            limit_s = max(self.lease_s, patience_s or 0)
            left_s = max(self._at, since) + limit_s - monotonic()
            if left_s <= 0:
                return limit_s
            await asyncio.sleep(left_s)
