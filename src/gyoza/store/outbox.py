"""The outbox, where every event lies from its own transaction on until it is published in the feed.

`feed.pos` is a cursor: whoever has read up to one position asks for what lies above it. That loses nothing only if
positions become visible in their order, which a sequence alone does not give: who takes a number first may commit last.
So one transaction at a time takes positions. It holds a lock that PostgreSQL lets go of after the commit can be seen
by all, and every later position is taken under that lock.

The leader alone publishes, and its first statement (`leader.check`) keeps another server from leading before its
transaction is over. The lock is there beside it for what a leadership does not exclude: two transactions of one leader,
when the answer to a COMMIT got lost on its way. A leader that freezes in between is ended by the database
(`database.FROZEN_AFTER_MS`); the positions that it took are never seen, and missed by nobody.

Of one run, the order here is that of its events: their writer holds the run's lock from before it takes an id of the
outbox until it commits. What commits late, with a lower id than what is published already, is of another run.
"""

from gyoza.store.database import Connection

_LOCK = 0x6779_6F7A_62
"""Key of the advisory lock under which positions are taken."""


async def publish(connection: Connection, limit: int) -> int:
    """Move the oldest events into the feed; how many. Within a transaction: positions are safe once it has ended."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    cursor = await connection.execute(
        """
        WITH moved AS (
            DELETE FROM outbox WHERE id = ANY(ARRAY(SELECT id FROM outbox ORDER BY id LIMIT %s)) RETURNING id, run_id, n
        )
        INSERT INTO feed (run_id, n) SELECT run_id, n FROM moved ORDER BY id
        """,
        [limit],
    )
    return cursor.rowcount
