"""What an engine has, as last seen: asked again in the background, so that a heartbeat never waits for Docker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

FRESH_S = 60.0


class Inventory:
    def __init__(self, ask: Callable[[], Awaitable[Sequence[str]]]):
        self._ask = ask
        self._seen: Sequence[str] = ()
        self._fresh_until = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    @property
    def seen(self) -> Sequence[str]:
        """What was seen last; where that is old, the next answer will be newer."""
        if monotonic() >= self._fresh_until and (self._asking is None or self._asking.done()):
            self._fresh_until = monotonic() + FRESH_S
            self._asking = asyncio.create_task(self._look())
        return self._seen

    def changed(self) -> None:
        self._fresh_until = float("-inf")

    async def _look(self) -> None:
        self._seen = await self._ask()

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
