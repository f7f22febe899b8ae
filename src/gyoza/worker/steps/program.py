"""The program itself, run by the engine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Running
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.identity import boot
from gyoza.worker.work import START_S, Begun, NotOurs, Work


@asynccontextmanager
async def program(work: Work) -> AsyncGenerator[None]:
    """Started, unless an earlier process did that; STARTED is told as soon as the engine says so."""
    async with AsyncExitStack() as stack:
        work.running = await (_started(work, stack) if work.begun is None else _adopted(work, stack, work.begun))
        if not work.spool.recall("started", bool):
            work.telling.tell(_event(work), summary=_summary(work), keep={"started": True})
        yield


async def _started(work: Work, stack: AsyncExitStack) -> Running:
    """Within `start_s`."""
    assert work.job is not None and work.ready is not None
    engine, start_s = work.place.engine, work.assignment.timeouts.start_s or START_S
    work.spool.keep(begun=Begun(engine.name, work.ready, boot()))
    try:
        async with asyncio.timeout(start_s):
            return await stack.enter_async_context(engine.started(work.job, work.ready))
    except TimeoutError as error:
        raise AttemptError("start_timeout", f"It had not started after {start_s:g} s") from error


async def _adopted(work: Work, stack: AsyncExitStack, begun: Begun) -> Running | None:
    """NotOurs where nothing of it came to an end that counts: what a worker no longer holds is lost."""
    assert work.job is not None
    running = await to_the_end(stack.enter_async_context(work.place.engine.adopt(work.job, begun.ready)))
    work.in_hand.set()
    if work.outcome is None and (running is None or begun.boot != boot()):
        raise NotOurs
    return running


def _event(work: Work) -> dict[str, Any]:
    gpu = {"gpu_id": work.assignment.gpu_ids[0]} if work.assignment.gpu_ids else {}
    how = work.place.engine.name
    payload = {"worker_id": work.place.worker, "engine": how, **gpu}
    return {"type": "STARTED", "msg": f"Started on {work.place.worker} ({how})", "payload": payload}


def _summary(work: Work) -> dict[str, Any]:
    return {
        "gpu_ids": list(work.assignment.gpu_ids),
        "image_digest": work.ready.digest if work.ready else None,
    }
