"""What a list of runs is narrowed to, and the SQL that follows from it: always read in the order of an index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from gyoza.models.lifecycle import OpRunState


@dataclass(frozen=True)
class Filters:
    """None and () do not narrow. Of `tags` all must be there; `reason` and `worker_id` are the current attempt's."""

    state: OpRunState | None = None
    op_definition: str | None = None
    image: str | None = None
    tags: Sequence[str] = ()
    reason: str | None = None
    worker_id: str | None = None
    submitted_by: str | None = None
    created_gte: datetime | None = None
    created_lte: datetime | None = None
    created_gt: datetime | None = None
    created_lt: datetime | None = None

    @property
    def given(self) -> Mapping[str, Any]:
        """Those that narrow, by their names."""
        return {name: value for name, value in vars(self).items() if value not in (None, ())}


@dataclass(frozen=True)
class Place:
    """Where a run stands in the order of a list."""

    created_at: datetime
    run_id: str


@dataclass(frozen=True)
class Narrowed:
    """SQL to select from (`r` is the run), what follows it, and the values of both."""

    source: LiteralString
    rest: LiteralString
    values: Mapping[str, Any]


@dataclass(frozen=True)
class _Order:
    """A source of runs, and the columns by which it is ordered."""

    source: LiteralString
    at: LiteralString
    id: LiteralString


_PLAIN = _Order("FROM runs r ", "r.created_at", "r.id")
_TAGGED = _Order("FROM run_tags t JOIN runs r ON r.id = t.run_id ", "t.created_at", "t.run_id")
"""A tag's runs have an index of their own, so that they are found however few or many they are."""

_CONDITIONS: Mapping[str, LiteralString] = {
    "state": "r.state = %(state)s",
    "op_definition": "r.op_definition = %(op_definition)s",
    "image": "r.image = %(image)s",
    "tag": "t.tag = %(tag)s",
    # The planner takes tags for independent of each other, expects next to nothing, and would read everything to find
    # it: it cannot look into coalesce.
    "more_tags": "coalesce(r.tags @> %(more_tags)s, false)",
    "reason": "r.reason = %(reason)s",
    "worker_id": "r.worker_id = %(worker_id)s",
    "submitted_by": "r.submitted_by = %(submitted_by)s",
    "created_gte": "{at} >= %(created_gte)s",
    "created_lte": "{at} <= %(created_lte)s",
    "created_gt": "{at} > %(created_gt)s",
    "created_lt": "{at} < %(created_lt)s",
    "after": "({at}, {id}) < (%(cursor_at)s, %(cursor_id)s)",
    "before": "({at}, {id}) > (%(cursor_at)s, %(cursor_id)s)",
}


def narrowed(filters: Filters, *, after: Place | None = None, before: Place | None = None) -> Narrowed:
    """Newest first, those older than `after`; or oldest first, those newer than `before`."""
    values = {name: value for name, value in filters.given.items() if name != "tags"}
    if filters.tags:
        values["tag"] = filters.tags[0]
    if len(filters.tags) > 1:
        values["more_tags"] = list(filters.tags[1:])
    names = [*values, *(["after"] if after else []), *(["before"] if before else [])]
    if cursor := after or before:
        values |= {"cursor_at": cursor.created_at, "cursor_id": cursor.run_id}
    order = _TAGGED if filters.tags else _PLAIN
    conditions = " AND ".join(["true", *(_CONDITIONS[name] for name in names)])
    direction = "ASC" if before else "DESC"
    rest = "WHERE " + conditions + f" ORDER BY {{at}} {direction}, {{id}} {direction} "
    return Narrowed(order.source, rest.format(at=order.at, id=order.id), values)
