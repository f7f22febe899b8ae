"""Publishing: what was committed gets its place in the feed, and watchers are woken. The leader alone does it."""

from gyoza.store import bell, leader, outbox
from gyoza.store.database import Connection, Database

BATCH = 1000
"""How many events one transaction publishes: another one may have to wait for its end."""


async def publish(database: Database, epoch: int) -> int:
    """How many events were published; raises Deposed when another server leads."""

    async def work(connection: Connection) -> int:
        await leader.check(connection, epoch)
        published = await outbox.publish(connection, BATCH)
        if published:
            await bell.ring(connection, [bell.FEED])
        return published

    return await database.transact(work)
