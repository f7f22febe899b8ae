"""Logs on their way to the server: of each attempt the file, in parts, from where the server's log ends."""

import asyncio
import logging
from contextlib import suppress

from gyoza.client import calls
from gyoza.client.errors import GyozaUnreachable, ResponseError, TooLarge
from gyoza.client.http import AsyncGyozaClient
from gyoza.worker.engines.log import Log
from gyoza.worker.patience import is_refusal, pauses
from gyoza.worker.reports import Lease

LANES = 8
PACE_S = 0.25
"""What an op writes in so short a time goes together."""
PART = 2**20
LEAST_PART = 4 * 2**10

_logger = logging.getLogger(__name__)


class Shipper:
    """One for a worker. So many parts are under way at once, of an attempt one at a time; who waits longest is next.

    None of them is in the way of anything else that the worker says: a part is small, and goes over a line of its own.
    """

    def __init__(self, client: AsyncGyozaClient, lanes: int = LANES):
        self._client = client
        self._lanes = asyncio.Semaphore(lanes)

    async def send(self, lease: Lease, offset: int, data: bytes) -> tuple[int, bool]:
        """Where the server's log goes on, and whether it takes nothing more."""
        call = calls.put_logs(lease.run_id, lease.attempt, data, offset=offset, lease_token=lease.token)
        async with self._lanes:
            answer = await self._client.send(call)
        return answer["offset"], answer["cut"]


class Shipment:
    """One attempt's log. `run` ends when the server has all of it, or takes no more: a log costs no run anything."""

    def __init__(self, shipper: Shipper, lease: Lease, log: Log):
        self._shipper, self._lease, self._log = shipper, lease, log
        self._offset = 0
        self._part = PART
        self._is_refused = False
        self._pauses = pauses()

    async def run(self) -> None:
        while not self._is_refused and not (self._log.over.is_set() and self._offset >= self._log.size):
            await self._log.grew.wait()
            self._log.grew.clear()
            while self._offset < self._log.size and not self._is_refused:
                await self._send()
                await self._pause(PACE_S if self._log.size < self._offset + self._part else 0)

    async def _send(self) -> None:
        try:
            data = self._log.read(self._offset, self._part)
            self._offset, is_cut = await self._shipper.send(self._lease, self._offset, data)
            self._pauses = pauses()
        except TooLarge as error:
            self._part //= 2
            self._is_refused = self._part < LEAST_PART and self._gives_up(error)
        except (GyozaUnreachable, ResponseError) as error:
            if not isinstance(error, ResponseError) or not is_refusal(error):
                await asyncio.sleep(next(self._pauses))
                return
            self._offset = error.problem.get("offset", self._offset)
            self._is_refused = error.code != "wrong_offset" and self._gives_up(error)
            await asyncio.sleep(PACE_S)
        else:
            if is_cut:
                self._is_refused = True
                self._log.stop_growing()

    def _gives_up(self, error: ResponseError) -> bool:
        _logger.warning("%s-%s: the rest of its log is not sent: %s", self._lease.run_id, self._lease.attempt, error)
        return True

    async def _pause(self, seconds: float) -> None:
        """Shorter where the log ends meanwhile: the end of a run waits for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._log.over.wait()
