"""Who leads: kept by renewing, won when nobody does."""

from gyoza.store import leader
from gyoza.store.database import Database
from gyoza.store.leader import Deposed as Deposed


async def hold(database: Database, holder: str, epoch: int | None) -> int | None:
    """The epoch in which this server leads now, None when another one does."""
    async with database.connection() as connection:
        await database.clock.sync(connection)
        if epoch is not None and await leader.renew(connection, epoch):
            return epoch
        return await leader.campaign(connection, holder)


async def resign(database: Database, epoch: int) -> None:
    async with database.connection() as connection:
        await leader.resign(connection, epoch)
