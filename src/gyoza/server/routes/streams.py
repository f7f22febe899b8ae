"""Watching: events as they come, and waiting for a run's end."""

from typing import Annotated

from fastapi import Header, Query, Request, Response

from gyoza.control import feed
from gyoza.models.errors import RunNotFound
from gyoza.models.lifecycle import EventType
from gyoza.server import watching
from gyoza.server.answers import RunOut
from gyoza.server.context import READ, Routes, Stream, context
from gyoza.server.routes.runs import EventNumber
from gyoza.server.sse import EventStream
from gyoza.server.tail import Interest
from gyoza.server.wire import Answer

router = Routes("watching")

_EVENTS = Stream(EventStream.media_type)
_LAST = "Last-Event-ID"
_GOES_FIRST = "sent by a client that connects anew; it goes before `after`"
LastNumber = Annotated[int | None, Header(alias=_LAST, ge=0, le=2**31 - 1, description=_GOES_FIRST)]
LastPosition = Annotated[int | None, Header(alias=_LAST, ge=0, le=2**63 - 1, description=_GOES_FIRST)]
Position = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="those above this position; 0 is all")]
Definition = Annotated[str | None, Query(description="of runs of this definition; empty counts as absent")]
Types = Annotated[list[EventType] | None, Query(description="of this type; may be repeated: of one of them")]
Tags = Annotated[list[str] | None, Query(description="of runs with this tag; may be repeated: with all of them")]
Timeout = Annotated[float, Query(ge=0, le=25, description="seconds")]


@router.call("GET", "/runs/{run_id}/events/stream", READ, answer=_EVENTS, status=(200, 204), refuses=(RunNotFound,))
async def stream_run(
    request: Request, run_id: str, after: EventNumber = -1, last_event_id: LastNumber = None
) -> Response:
    """Watch a run.

    Its events as they come, as server-sent events, up to its end; 204 where that was told already.
    """
    tail, last = context(request).tail, after if last_event_id is None else last_event_id
    if await feed.is_told(tail.database, run_id, last):
        return Response(status_code=204)
    return EventStream(watching.stream_of_run(tail, run_id, last))


@router.call("GET", "/events/stream", READ, answer=_EVENTS)
async def stream_all(
    request: Request,
    op_definition: Definition = None,
    type: Types = None,
    tag: Tags = None,
    after: Position = None,
    last_event_id: LastPosition = None,
) -> Response:
    """Watch all runs.

    Their events as they come, as server-sent events, in one order for all who watch; from now on, or after a position.
    """
    tags = frozenset(each for each in tag or () if each)
    interest = Interest(None, op_definition or None, frozenset(type or ()), tags)
    last = after if last_event_id is None else last_event_id
    return EventStream(watching.stream_of_cluster(context(request).tail, interest, last))


@router.call("GET", "/runs/{run_id}/wait", READ, answer=RunOut, refuses=(RunNotFound,))
async def wait_for_run(request: Request, run_id: str, timeout_s: Timeout = 25) -> Response:
    """Wait for a run.

    Answered as soon as it is over; when the time is, with the run as it is.
    """
    return Answer((await watching.ended(context(request).tail, run_id, timeout_s)).to_dict())
