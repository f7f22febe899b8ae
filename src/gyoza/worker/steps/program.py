"""The program itself, run by the engine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from gyoza.models.errors import AttemptError
from gyoza.worker.work import START_S, Work


@asynccontextmanager
async def program(work: Work) -> AsyncGenerator[None]:
    """Started within `start_s`; STARTED is told as soon as the engine says so."""
    assert work.job is not None and work.ready is not None
    start_s = work.assignment.timeouts.start_s or START_S
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(start_s):
                started = work.place.engine.started(work.job, work.ready)
                work.running = await stack.enter_async_context(started)
        except TimeoutError as error:
            raise AttemptError("start_timeout", f"It had not started after {start_s:g} s") from error
        work.telling.tell(_started(work), summary=_summary(work))
        yield


def _started(work: Work) -> dict[str, Any]:
    gpu = {"gpu_id": work.assignment.gpu_ids[0]} if work.assignment.gpu_ids else {}
    how = work.place.engine.name
    payload = {"worker_id": work.place.worker, "engine": how, **gpu}
    return {"type": "STARTED", "msg": f"Started on {work.place.worker} ({how})", "payload": payload}


def _summary(work: Work) -> dict[str, Any]:
    return {
        "gpu_ids": list(work.assignment.gpu_ids),
        "image_digest": work.ready.digest if work.ready else None,
    }
