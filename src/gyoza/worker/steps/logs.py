"""What the op writes to stdout and stderr: kept in a file beside `io_dir`, and sent to the server as it grows."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import replace

from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.engines.log import Log
from gyoza.worker.redaction import Redactor
from gyoza.worker.shipping import Shipment
from gyoza.worker.work import Work

SENT_WITHIN_S = 20.0
"""How long an attempt whose program is gone waits for the rest of its log to arrive, be the server slow or away."""
LEAVING_WITHIN_S = 1.0
"""The same where the worker itself leaves."""


@asynccontextmanager
async def logs(work: Work) -> AsyncGenerator[None]:
    """Open before the program starts. Whoever sees the run's end finds its whole log, unless that takes too long."""
    assert work.job is not None
    file, limit = work.io_dir.parent / "log", work.place.log_limit
    with closing(Log(file, limit=limit, new_filter=lambda: Redactor(work.secrets.values()), goes_on=True)) as log:
        work.job = replace(work.job, log=log)
        shipping = asyncio.create_task(Shipment(work.place.shipper, work.assignment.lease, log).run())
        try:
            yield
        finally:
            log.end()
            await _sent(work, shipping)


async def _sent(work: Work, shipping: asyncio.Task[None]) -> None:
    try:
        await asyncio.wait({shipping}, timeout=LEAVING_WITHIN_S if _is_leaving(work) else SENT_WITHIN_S)
    finally:
        shipping.cancel()
        await to_the_end(_over(shipping))


def _is_leaving(work: Work) -> bool:
    """Whether it is the worker that ends, and not the program, or the run."""
    task = asyncio.current_task()
    is_cancelled = task is not None and task.cancelling() > 0
    return work.stop_reason is not None or (is_cancelled and not work.stopped.is_set())


async def _over(shipping: asyncio.Task[None]) -> None:
    await asyncio.gather(shipping, return_exceptions=True)
