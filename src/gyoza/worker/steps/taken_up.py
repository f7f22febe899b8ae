"""The server's word that this attempt is this worker's: nothing is prepared or started without it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from gyoza.worker.work import NotOurs, Work


@asynccontextmanager
async def taken_up(work: Work) -> AsyncGenerator[None]:
    """The first report: it acknowledges the assignment. Raises NotOurs where it is refused.

    What an earlier process began is taken hold of at once: what the server says of that stops it, if it must.
    """
    verdict = work.telling.tell()
    if work.begun is None and not (await verdict).ok:
        raise NotOurs
    yield
