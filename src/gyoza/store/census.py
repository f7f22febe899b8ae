"""How much there is of what is alive: counted from live rows, by their indexes."""

from gyoza.store.database import Connection


async def runs(connection: Connection) -> dict[str, int]:
    """Runs that are not over, by state."""
    cursor = await connection.execute(
        "SELECT state, count(*) FROM runs WHERE state IN ('PENDING', 'ASSIGNED', 'RUNNING') GROUP BY state"
    )
    return dict(await cursor.fetchall())


async def unpublished(connection: Connection) -> int:
    """Events that are committed and not in the feed yet."""
    cursor = await connection.execute("SELECT count(*) FROM outbox")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]
