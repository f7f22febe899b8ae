"""Reading runs: one, a page, its events, its attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gyoza.models.errors import InvalidQuery, RunNotFound
from gyoza.models.run import EventEntry, OpAttempt, OpRun, is_run_id
from gyoza.store import attempts, events, pages
from gyoza.store.database import Connection, Database
from gyoza.store.filters import Filters as Filters
from gyoza.store.filters import Place

MOST_EVENTS = 1000


@dataclass(frozen=True)
class Page:
    runs: Sequence[OpRun]
    has_more: bool

    def to_dict(self) -> dict[str, Any]:
        data = [run.to_dict() for run in self.runs]
        return {"object": "list", "data": data, "has_more": self.has_more, "url": "/runs"}


async def get(database: Database, run_id: str) -> OpRun:
    if not is_run_id(run_id):
        raise RunNotFound(run_id)
    async with database.connection() as connection:
        return await pages.get(connection, run_id)


async def page(
    database: Database,
    filters: Filters,
    limit: int,
    *,
    starting_after: str | None = None,
    ending_before: str | None = None,
) -> Page:
    """One row more than asked for tells whether more lie beyond. Raises InvalidQuery for a bad cursor."""
    if starting_after is not None and ending_before is not None:
        raise InvalidQuery("starting_after and ending_before cannot be used together: give one of them")
    async with database.connection() as connection:
        after = await _cursor(connection, "starting_after", starting_after)
        before = await _cursor(connection, "ending_before", ending_before)
        found = await pages.newest_first(connection, filters, limit + 1, after=after, before=before)
    kept = found[-limit:] if before is not None else found[:limit]
    return Page(kept, len(found) > limit)


async def events_of(
    database: Database, run_id: str, after: int, attempt: int | None
) -> tuple[OpRun, Sequence[EventEntry], bool]:
    """The run, its events above `after`, and whether there are more than one answer holds.

    The run is read after the events, so that its state is never older than they are.
    """
    await get(database, run_id)
    async with database.connection() as connection:
        found = await events.page(connection, run_id, after=after, attempt=attempt, limit=MOST_EVENTS + 1)
    return await get(database, run_id), found[:MOST_EVENTS], len(found) > MOST_EVENTS


async def attempts_of(database: Database, run_id: str) -> list[OpAttempt]:
    run = await get(database, run_id)
    async with database.connection() as connection:
        return await attempts.of_run(connection, run.id)


async def _cursor(connection: Connection, name: str, run_id: str | None) -> Place | None:
    if run_id is None:
        return None
    place = await pages.place_of(connection, run_id) if is_run_id(run_id) else None
    if place is None:
        raise InvalidQuery(f"{name}: OpRun '{run_id}' not found")
    return place
