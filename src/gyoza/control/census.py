"""What a monitor wants to know of a cluster."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gyoza.models.lifecycle import TERMINAL, OpRunState
from gyoza.policy.liveness import Liveness, Pace, liveness
from gyoza.store import census, feed, workers
from gyoza.store.database import Database


@dataclass(frozen=True)
class Census:
    """`runs` that are not over and `workers`, each by state; `published` is the newest position of the feed.

    `quarantined`: so many workers that live are in quarantine.
    """

    runs: Mapping[str, int]
    workers: Mapping[str, int]
    quarantined: int
    unpublished: int
    published: int


async def take(database: Database, pace: Pace, now: datetime) -> Census:
    async with database.snapshot() as connection:
        found = await census.runs(connection)
        staff = await workers.every(connection)
        states = Counter(
            Liveness.LOST if worker.evicted_at else liveness(worker.seen_at, now, pace) for worker in staff
        )
        return Census(
            runs={state: found.get(state, 0) for state in OpRunState if state not in TERMINAL},
            workers={state: states[state] for state in Liveness},
            quarantined=sum(worker.quarantine is not None and worker.evicted_at is None for worker in staff),
            unpublished=await census.unpublished(connection),
            published=await feed.newest(connection),
        )
