"""One server leads: a row with an epoch, on the database's clock, taken over when it is not renewed."""

from gyoza.models.errors import GyozaError
from gyoza.store.database import Connection

RENEW_S = 1.0
LEASE_S = 4


class Deposed(GyozaError):
    code = "deposed"

    def __init__(self) -> None:
        super().__init__("Another server leads now")


async def campaign(connection: Connection, holder: str) -> int | None:
    """The epoch of a new leadership, or None while another server leads."""
    cursor = await connection.execute(
        """
        UPDATE leader SET epoch = epoch + 1, holder = %s, expires_at = clock_timestamp() + make_interval(secs => %s)
        WHERE expires_at < clock_timestamp() RETURNING epoch
        """,
        [holder, LEASE_S],
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def renew(connection: Connection, epoch: int) -> bool:
    cursor = await connection.execute(
        """
        UPDATE leader SET expires_at = clock_timestamp() + make_interval(secs => %s)
        WHERE epoch = %s AND expires_at >= clock_timestamp()
        """,
        [LEASE_S, epoch],
    )
    return cursor.rowcount == 1


async def resign(connection: Connection, epoch: int) -> None:
    await connection.execute("UPDATE leader SET expires_at = '-infinity' WHERE epoch = %s", [epoch])


async def hold_off(connection: Connection) -> None:
    """First statement of a change that placing must not overlap: it waits for the round that is under way."""
    await connection.execute("SELECT 1 FROM leader FOR UPDATE")


async def check(connection: Connection, epoch: int) -> None:
    """First statement of a leader's transaction: nobody takes over before it ends; raises Deposed if somebody has."""
    cursor = await connection.execute(
        "SELECT 1 FROM leader WHERE epoch = %s AND expires_at >= clock_timestamp() FOR SHARE", [epoch]
    )
    if await cursor.fetchone() is None:
        raise Deposed


async def check_now(connection: Connection, epoch: int) -> None:
    """For work that does no harm beside another leader: raises Deposed if somebody has taken over, and holds off none.

    Who renews the leadership, or takes it over, does not wait for the transaction.
    """
    cursor = await connection.execute(
        "SELECT 1 FROM leader WHERE epoch = %s AND expires_at >= clock_timestamp()", [epoch]
    )
    if await cursor.fetchone() is None:
        raise Deposed
