"""What an earlier process of this worker started, if that was killed and has left this attempt behind."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from gyoza.worker.engines import Job
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.work import Begun, Work


@asynccontextmanager
async def remains(work: Work) -> AsyncGenerator[None]:
    """The step program takes hold of it; where it is never come to that, it is ended here. Nothing of it is left."""
    try:
        yield
    finally:
        if work.begun is not None and not work.in_hand.is_set():
            await to_the_end(_ended(work, work.begun))


async def _ended(work: Work, begun: Begun) -> None:
    assigned, room = work.assignment, work.assignment.constraints.counted
    job = Job(assigned.lease.run_id, assigned.lease.attempt, work.io_dir, room.cpu_m, room.ram_mb)
    async with work.place.engine.adopt(job, begun.ready):
        return
