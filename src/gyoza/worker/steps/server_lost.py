"""What becomes of an attempt whose server is not heard any more."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from gyoza.worker.work import Work


@asynccontextmanager
async def server_lost(work: Work) -> AsyncGenerator[None]:
    """Stopped when its op says so; else it goes on, and is told of when the server is back."""
    if work.assignment.execution.on_server_lost != "stop":
        yield
        return
    watching = asyncio.create_task(_watch(work))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(work: Work) -> None:
    silent_s = await work.place.contact.lost(work.assignment.execution.server_lost_s)
    said = f"The server was not heard for {silent_s:g} s (execution.on_server_lost is 'stop')"
    work.stop("drained", said)
