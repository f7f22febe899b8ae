"""A worker shows that it lives: to the service manager that started it, and to whoever asks its health."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from gyoza.worker.health import Said, answering
from gyoza.worker.pulse import STUCK_S, TICK_S, Pulse
from gyoza.worker.systemd import feed_watchdog


@asynccontextmanager
async def alive(pulse: Pulse, port: int | None, said: Said) -> AsyncGenerator[None]:
    pulse.turn("the event loop", STUCK_S)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(_tick(pulse)), asyncio.create_task(feed_watchdog(pulse))]
    try:
        with answering(port, pulse, said):
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tick(pulse: Pulse) -> None:
    while True:
        pulse.turn("the event loop", STUCK_S)
        await asyncio.sleep(TICK_S)
