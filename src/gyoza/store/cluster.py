"""The cluster's own row."""

from gyoza.store.database import Connection


async def identity(connection: Connection) -> str:
    cursor = await connection.execute("SELECT id FROM cluster")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]
