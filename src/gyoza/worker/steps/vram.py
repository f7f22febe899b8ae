"""How much GPU memory the program uses, measured process by process: more than it declared ends it, and it alone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.gpus import MB
from gyoza.worker.work import Work

LOOK_S = 1.0
TIMES = 2
"""Looks in a row that must find too much: what was given back within a second is forgiven."""


@asynccontextmanager
async def vram(work: Work) -> AsyncGenerator[None]:
    """Watched while it runs on a GPU."""
    if not work.assignment.gpu_ids:
        yield
        return
    watch = Watch(work)
    watching = asyncio.create_task(watch.watch())
    try:
        yield
    finally:
        watching.cancel()
        await to_the_end(_over(watching))


async def _over(watching: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        await watching


class Watch:
    """Sets `work.overuse` and ends the program, once it uses more than it declared."""

    def __init__(self, work: Work):
        self._work = work
        self._declared = work.share.vram_mb
        self._times = 0

    async def watch(self) -> None:
        """Until it is cancelled, or has ended the program: with no grace, since its neighbours want for memory."""
        while self._times < TIMES:
            await asyncio.sleep(LOOK_S)
            await self._look()
        assert self._work.running is not None
        await self._work.running.stop(0)

    async def _look(self) -> None:
        used = await self._used()
        if not used:
            return
        gpu_id, most = max(used.items(), key=lambda item: item[1])
        self._work.peak_vram_mb = max(most, self._work.peak_vram_mb or 0)
        self._times = self._times + 1 if 0 < self._declared < most else 0
        if self._times == TIMES:
            self._work.overuse = (
                f"It used {most} MB of the memory of GPU {gpu_id} and declared {self._declared} MB "
                "(constraints.vram_mb)"
            )

    async def _used(self) -> dict[int, int]:
        """MB by the id of the GPU; not of those of which the driver does not tell, nor of processes out of sight."""
        gpus, share = self._work.place.gpus, self._work.share
        used: dict[int, int] = {}
        if not share.pids:
            return used
        for device in (await gpus.look()).devices:
            if device.id not in share.gpu_ids:
                continue
            found = device.used_by(share.pids)
            if found is None:
                gpus.note_silence(device)
            else:
                used[device.id] = -(-found // MB)
        return used
