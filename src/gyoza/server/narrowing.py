"""The filters of a list of runs, as query parameters: the same for listing, cancelling and retrying."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query

from gyoza.control.query import Filters
from gyoza.models.errors import InvalidQuery
from gyoza.models.lifecycle import OpRunState
from gyoza.models.reasons import Reason

_Seconds = Annotated[int | None, Query()]


def _narrowed(
    state: str | None = None,
    status: str | None = None,
    op_definition: str | None = None,
    image: str | None = None,
    tag: Annotated[list[str] | None, Query()] = None,
    reason: str | None = None,
    worker_id: str | None = None,
    submitted_by: str | None = None,
    created_gte: Annotated[int | None, Query(alias="created[gte]")] = None,
    created_lte: Annotated[int | None, Query(alias="created[lte]")] = None,
    created_gt: Annotated[int | None, Query(alias="created[gt]")] = None,
    created_lt: Annotated[int | None, Query(alias="created[lt]")] = None,
) -> Filters:
    """An empty value counts as absent."""
    return Filters(
        state=_state(state, status),
        op_definition=op_definition or None,
        image=image or None,
        tags=tuple(dict.fromkeys(each for each in tag or () if each)),
        reason=_reason(reason),
        worker_id=worker_id or None,
        submitted_by=submitted_by or None,
        created_gte=_moment(created_gte),
        created_lte=_moment(created_lte),
        created_gt=_moment(created_gt),
        created_lt=_moment(created_lt),
    )


Narrowed = Annotated[Filters, Depends(_narrowed)]


def _state(state: str | None, status: str | None) -> OpRunState | None:
    if state and status and state != status:
        raise InvalidQuery("state and status must match when both are provided")
    wanted = state or status
    if not wanted:
        return None
    if wanted not in OpRunState.__members__:
        raise InvalidQuery(f"Invalid state '{wanted}'")
    return OpRunState(wanted)


def _reason(reason: str | None) -> Reason | None:
    if not reason:
        return None
    if reason not in {each.value for each in Reason}:
        raise InvalidQuery(f"Invalid reason '{reason}'")
    return Reason(reason)


def _moment(unix_s: int | None) -> datetime | None:
    try:
        return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidQuery("Invalid created timestamp") from error
