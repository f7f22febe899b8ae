"""Cancelling and retrying all runs that a list's filters find, in small transactions, so that nobody waits long."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any

from gyoza.control.cancel import cancelled
from gyoza.control.change import Change, change_all
from gyoza.control.retry import retried
from gyoza.models.errors import InvalidQuery, Refusal
from gyoza.models.lifecycle import TRANSITIONS, EventType, OpRunState
from gyoza.store import pages
from gyoza.store.database import Connection, Database
from gyoza.store.filters import Filters

AT_ONCE = 200
"""How many runs one transaction changes."""
LONGEST_S = 20.0
"""After so long an answer says how far it came, rather than that a client gives up waiting."""
MOST = 100_000
"""How many runs in a state one call looks at."""

_JUDGES = {EventType.CANCELLED: cancelled, EventType.RETRIED: retried}


@dataclass(frozen=True)
class Swept:
    """`matched`: runs that the filters found and that can be changed so; `has_more`: there are more than these.

    Of those, `changed` are the ones that were still in such a state when their turn came.
    """

    matched: int
    changed: int
    has_more: bool
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


async def cancel_all(database: Database, filters: Filters, now: datetime, *, dry_run: bool) -> Swept:
    return await _sweep(database, EventType.CANCELLED, filters, now, dry_run=dry_run)


async def retry_all(database: Database, filters: Filters, now: datetime, *, dry_run: bool) -> Swept:
    return await _sweep(database, EventType.RETRIED, filters, now, dry_run=dry_run)


async def _sweep(database: Database, event: EventType, filters: Filters, now: datetime, *, dry_run: bool) -> Swept:
    if not filters.given:
        raise InvalidQuery("Without a filter this would change every run: say which, by the filters of GET /runs")
    parts = [replace(filters, state=state) for state in _states(event) if filters.state in (None, state)]
    if dry_run:
        return await _counted(database, parts)
    found, has_more = await _found(database, parts)
    until = monotonic() + LONGEST_S
    changed = 0
    for done in range(0, len(found), AT_ONCE):
        if done and monotonic() > until:
            return Swept(done, changed, has_more=True, dry_run=False)
        changed += await database.transact(partial(_change, event, found[done : done + AT_ONCE], now))
    return Swept(len(found), changed, has_more, dry_run=False)


def _states(event: EventType) -> Sequence[OpRunState]:
    """Those in which it can happen."""
    return [state for state, possible in TRANSITIONS if possible is event]


async def _counted(database: Database, parts: Sequence[Filters]) -> Swept:
    async with database.snapshot() as connection:
        counts = [await pages.count(connection, part, MOST + 1) for part in parts]
    return Swept(sum(min(count, MOST) for count in counts), 0, max(counts, default=0) > MOST, dry_run=True)


async def _found(database: Database, parts: Sequence[Filters]) -> tuple[Sequence[str], bool]:
    """The ids of one moment, in which every run is in one state: none is missed on its way, and none is met twice."""
    async with database.snapshot() as connection:
        found = [await pages.ids(connection, part, MOST + 1) for part in parts]
    return [run_id for ids in found for run_id in ids[:MOST]], any(len(ids) > MOST for ids in found)


async def _change(event: EventType, run_ids: Sequence[str], now: datetime, connection: Connection) -> int:
    """How many were changed; the others went on since they were found."""
    outcomes, _ = await change_all(connection, [Change(run_id, _JUDGES[event]) for run_id in run_ids], now)
    return sum(not isinstance(outcome, Refusal) for outcome in outcomes)
