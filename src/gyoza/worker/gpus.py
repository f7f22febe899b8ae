"""The GPUs of this machine: what the driver tells of them, and how much of each is not this worker's to give."""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from gyoza.models.errors import AttemptError
from gyoza.models.resources import Gpu
from gyoza.worker import nvml
from gyoza.worker.nvml import Device, Look, Nvml, NVMLError

MB = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """What an attempt has of the GPUs: on which, how much it declared, and the host's ids of its processes."""

    gpu_ids: Collection[int]
    vram_mb: int
    pids: Collection[int]


class Gpus:
    """Without a library there are none. A GPU that does not answer is not there, and the log says so once.

    A driver that takes longer than `answer_s` counts as having none until it answers: nothing waits for it.
    """

    def __init__(self, library: Nvml | None = None, answer_s: float = 2.0):
        self._library = library
        self._answer_s = answer_s
        self._is_open = False
        self._looking: asyncio.Future[Look] | None = None
        self._troubles: set[str] = set()
        self._silent: set[str] = set()

    async def look(self) -> Look:
        """As they are now. Who asks at the same time shares one look."""
        if self._library is None:
            return Look(silent="not asked", no_driver=True)
        if self._looking is None or self._looking.done():
            self._looking = _in_a_thread(partial(self._look, self._library))
        looking = self._looking
        await asyncio.wait({looking}, timeout=self._answer_s)
        seen = looking.result() if looking.done() else Look(silent=f"no answer for {self._answer_s:g} s")
        self._say(set(_troubles(seen)))
        return seen

    async def offered(self, shares: Iterable[Share]) -> tuple[Gpu, ...]:
        """Every GPU with what is used there by others than these attempts."""
        seen, shares = await self.look(), list(shares)
        return tuple(offered(device, shares) for device in seen.devices)

    async def uuids(self, gpu_ids: Iterable[int]) -> tuple[str, ...]:
        """AttemptError `start_failed` where one is gone: no other may stand in for it."""
        ids = list(gpu_ids)
        known = {device.id: device.uuid for device in (await self.look()).devices} if ids else {}
        if missing := [gpu_id for gpu_id in ids if gpu_id not in known]:
            raise AttemptError("start_failed", f"GPU {missing[0]}, on which it was placed, is not on this worker now")
        return tuple(known[gpu_id] for gpu_id in ids)

    def note_silence(self, device: Device) -> None:
        """Once for each GPU: that what a program uses of it cannot be measured."""
        if device.uuid not in self._silent:
            self._silent.add(device.uuid)
            _log.warning("GPU %s: the driver does not tell what each process uses; no run is held to it", device.id)

    def _look(self, library: Nvml) -> Look:
        """In the thread. Where nothing answers any more, the driver may have been loaded anew: begin again."""
        try:
            if not self._is_open:
                library.nvmlInit()
                self._is_open = True
            seen = nvml.look(library)
        except NVMLError as error:
            seen = nvml.silence(error)
        if not seen.devices and self._is_open:
            self._is_open = False
            with suppress(NVMLError):
                library.nvmlShutdown()
        return seen

    def _say(self, troubles: set[str]) -> None:
        for trouble in sorted(troubles - self._troubles):
            _log.warning("%s", trouble)
        for trouble in sorted(self._troubles - troubles):
            _log.warning("over: %s", trouble)
        self._troubles = troubles


def _troubles(seen: Look) -> Iterator[str]:
    if seen.silent is not None and not seen.no_driver:
        yield f"No GPU is used, its driver fails: {seen.silent}"
    yield from (f"GPU {gpu_id} is not used, its driver says: {why}" for gpu_id, why in seen.lost.items())


def offered(device: Device, shares: Iterable[Share]) -> Gpu:
    """`foreign_mb`: what is used there, but not by these attempts."""
    ours = sum(_of(device, share) for share in shares if device.id in share.gpu_ids)
    foreign_mb = -(-max(0, device.used - ours) // MB)
    return Gpu(device.id, device.uuid, device.name, device.vram // MB, foreign_mb)


def _of(device: Device, share: Share) -> int:
    """What it uses; where the driver does not tell, what it declared."""
    used = device.used_by(share.pids)
    return share.vram_mb * MB if used is None else used


def _in_a_thread(ask: Callable[[], Look]) -> asyncio.Future[Look]:
    """Of its own and never waited for at exit: a driver may hang for good."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Look] = loop.create_future()

    def run() -> None:
        seen = ask()
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(lambda: answer.done() or answer.set_result(seen))

    threading.Thread(target=run, name="gpus", daemon=True).start()
    return answer
