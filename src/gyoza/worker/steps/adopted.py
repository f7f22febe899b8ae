"""What an earlier process of this worker started, if that was killed and has left this attempt behind."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from gyoza.worker.engines import Job
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.identity import boot
from gyoza.worker.work import NotOurs, Work


@asynccontextmanager
async def adopted(work: Work) -> AsyncGenerator[None]:
    """Taken hold of before anything else can fail or be stopped: it is gone when this is left, whatever happens.

    Raises NotOurs where nothing of it came to an end that counts: what a worker no longer holds is lost.
    """
    async with AsyncExitStack() as stack:
        if work.begun is not None:
            found = stack.enter_async_context(work.place.engine.adopt(_job(work), work.begun.ready))
            work.running = await to_the_end(found)
            if work.outcome is None and (work.running is None or work.begun.boot != boot()):
                raise NotOurs
        yield


def _job(work: Work) -> Job:
    """What of it matters once it is started."""
    assigned, room = work.assignment, work.assignment.constraints.counted
    return Job(
        run_id=assigned.lease.run_id,
        attempt=assigned.lease.attempt,
        io_dir=work.io_dir,
        cpu_m=room.cpu_m,
        ram_mb=room.ram_mb,
        image=assigned.image,
        bundle=assigned.bundle,
    )
