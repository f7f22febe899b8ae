"""Workers that do far worse than others take no more runs, until one run at a time shows that they can be trusted.

The leader alone judges, between two rounds of placing. What it judges by is read from the attempts themselves.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from gyoza.policy.quarantine import begun, convict, is_needed, lengthened, readmits
from gyoza.store import bell, endings, leader, workers
from gyoza.store.database import Connection, Database

_log = logging.getLogger(__name__)


async def judge(database: Database, epoch: int, now: datetime) -> dict[str, int]:
    """How many workers went into quarantine, and came out of it; nothing at all where nobody is in doubt."""
    async with database.connection() as connection:
        if not await endings.is_doubtful(connection, now):
            return {}

    async def work(connection: Connection) -> tuple[Sequence[str], Sequence[str]]:
        await leader.check(connection, epoch)
        crew = await workers.crew(connection)
        freed = await _release(connection, crew, now)
        caught = await _catch(connection, crew, now)
        return freed, caught

    freed, caught = await database.transact(work)
    for line in (*freed, *caught):
        _log.warning(line)
    return {"judged": 1, "readmitted": len(freed), "quarantined": len(caught)}


async def _catch(connection: Connection, crew: workers.Crew, now: datetime) -> Sequence[str]:
    verdicts = convict(await endings.tallies(connection, now), crew)
    for worker_id, verdict in verdicts.items():
        await workers.quarantine(connection, worker_id, begun(verdict, now))
    return [f"worker {worker_id} is in quarantine: {verdict.reason}" for worker_id, verdict in verdicts.items()]


async def _release(connection: Connection, crew: workers.Crew, now: datetime) -> Sequence[str]:
    """Those whose canary came through, and those that are needed since all others have gone."""
    ended, freed = await endings.canaries(connection, now), dict[str, str]()
    for worker_id, engines, held_back in await workers.quarantined(connection):
        if is_needed(worker_id, engines, crew):
            freed[worker_id] = "there is no other one of its kind"
        elif worker_id in ended and readmits(held_back.cause, ended[worker_id]):
            freed[worker_id] = "one came through"
        elif worker_id in ended:
            await workers.quarantine(connection, worker_id, lengthened(held_back, now))
    for worker_id in freed:
        await workers.trust(connection, worker_id, now)
    if freed:
        await bell.ring(connection, [bell.QUEUE])
    return [f"worker {worker_id} takes runs again: {why}" for worker_id, why in freed.items()]
