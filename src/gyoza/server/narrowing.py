"""The filters of a list of runs, as query parameters: the same for listing, cancelling and retrying."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from inspect import signature
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from gyoza.control.query import Filters
from gyoza.models.errors import Fault, InvalidQuery, Malformed
from gyoza.models.lifecycle import OpRunState
from gyoza.models.reasons import Reason
from gyoza.models.strictjson import pointer


def _one_of(values: Iterable[str], description: str) -> Any:
    """Said in the document alone: what is none of these is refused in words that the contract keeps."""
    return Query(description=description, json_schema_extra={"enum": [*values, ""]})


_State = Annotated[str | None, _one_of(OpRunState, "in this state")]
_Seconds = Annotated[
    int | None, Query(description="UNIX seconds", json_schema_extra={"minimum": -62135596800, "maximum": 253402300799})
]


def _narrowed(
    state: _State = None,
    status: Annotated[_State, Query(description="another name for `state`")] = None,
    op_definition: Annotated[str | None, Query(description="of this definition")] = None,
    image: Annotated[str | None, Query(description="with this image")] = None,
    tag: Annotated[list[str] | None, Query(description="with this tag; may be repeated: with all of them")] = None,
    reason: Annotated[str | None, _one_of(Reason, "the current attempt ended for this reason")] = None,
    worker_id: Annotated[str | None, Query(description="the current attempt is this worker's")] = None,
    submitted_by: Annotated[str | None, Query(description="asked for with the key of this name")] = None,
    created_gte: Annotated[_Seconds, Query(alias="created[gte]")] = None,
    created_lte: Annotated[_Seconds, Query(alias="created[lte]")] = None,
    created_gt: Annotated[_Seconds, Query(alias="created[gt]")] = None,
    created_lt: Annotated[_Seconds, Query(alias="created[lt]")] = None,
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
_NAMES = {re.sub(r"^created_(\w+)$", r"created[\1]", name) for name in signature(_narrowed).parameters} | {"dry_run"}
_UNKNOWN = "is no filter: see GET /runs", "unknown_member"
_EMPTY_ONE = "is empty: leave it out", "too_short"


def _meant(request: Request, filters: Narrowed) -> Filters:
    """Where runs are changed, a filter that is misspelt or empty must not be passed over: it would change more."""
    faults = [
        Fault(pointer("query", name), *(_EMPTY_ONE if name in _NAMES else _UNKNOWN))
        for name, value in request.query_params.multi_items()
        if name not in _NAMES or not value
    ]
    if faults:
        raise Malformed(faults)
    return filters


Meant = Annotated[Filters, Depends(_meant)]


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
