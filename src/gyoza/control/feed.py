"""Reading what happened, in pages: of the whole cluster by the feed's positions, of one run by its events' numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gyoza.models.errors import RunNotFound
from gyoza.models.run import is_run_id
from gyoza.store import feed, pages
from gyoza.store.database import Database
from gyoza.store.feed import Entry as Entry
from gyoza.store.feed import Position as Position

PAGE = 200
"""How many events are read at once: each may have 128 KiB."""


@dataclass(frozen=True)
class Page:
    """`upto`: the cursor after it. `has_more`: there may be more above. `gone`: runs that were deleted meanwhile."""

    entries: Sequence[Entry]
    upto: int
    has_more: bool
    gone: frozenset[str] = frozenset()


async def newest(database: Database) -> int:
    async with database.connection() as connection:
        return await feed.newest(connection)


async def page(database: Database, after: int, wanted: Callable[[Position], bool]) -> Page:
    """Of what was published above `after`, that of which the position alone does not say that it is not wanted."""
    async with database.connection() as connection:
        positions = await feed.positions(connection, after, PAGE)
        chosen = [position for position in positions if wanted(position)]
        entries = await feed.entries(connection, chosen) if chosen else []
    gone = {position.run_id for position in chosen} - {entry.run_id for entry in entries}
    return Page(entries, positions[-1].pos if positions else after, len(positions) == PAGE, frozenset(gone))


async def page_of_run(database: Database, run_id: str, after: int) -> Page:
    """The run's events with a number above `after`; raises RunNotFound."""
    async with database.connection() as connection:
        entries = await feed.of_run(connection, run_id, after, PAGE)
        if not entries:
            await pages.outline(connection, run_id)
    return Page(entries, entries[-1].event.id if entries else after, len(entries) == PAGE)


async def is_told(database: Database, run_id: str, after: int) -> bool:
    """Whether the run is over, and has no event with a number above `after`; raises RunNotFound."""
    if not is_run_id(run_id):
        raise RunNotFound(run_id)
    async with database.connection() as connection:
        state, events_count = await pages.outline(connection, run_id)
    return state.is_terminal and events_count <= after + 1
