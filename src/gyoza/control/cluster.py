"""Which cluster this is: every database is one."""

from gyoza.store import cluster
from gyoza.store.database import Database


async def identity(database: Database) -> str:
    async with database.connection() as connection:
        return await cluster.identity(connection)
