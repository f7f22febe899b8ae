"""Runs: how they are asked for, looked at and changed."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query, Request, Response

from gyoza.control import append, cancel, query, retry, submit, update
from gyoza.control.query import Filters
from gyoza.models.definition import EventDelivery, RetryPolicy
from gyoza.models.errors import InvalidQuery
from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.models.strictjson import parse
from gyoza.server.answers import AttemptOut, EventsOut, RunOut, RunsOut
from gyoza.server.context import READ, SUBMIT, Routes, context
from gyoza.server.schemas import CreateRun, EventBody, UpdateRun
from gyoza.server.wire import JSON_LIMIT, Answer, checked, happening, limited, members, read_body

router = Routes("runs")

EventNumber = Annotated[int, Query(ge=-1, le=2**31 - 1)]
AttemptNumber = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


@router.hot("POST", "/runs", SUBMIT, body=CreateRun, answer=RunOut, statuses=(201, 413, 422))
async def create_run(request: Request) -> Response:
    """Run an image once, without a definition."""
    body = await read_body(request)
    wanted, raw = checked(CreateRun, parse(body)), members(body)
    submission = submit.AdHoc(
        image=wanted.image,
        inputs=limited(raw["inputs"], "inputs", JSON_LIMIT) if "inputs" in raw else {},
        priority=wanted.priority,
        constraints=Constraints.from_dict(wanted.constraints.model_dump() if wanted.constraints else None),
        retry_policy=RetryPolicy.from_dict(wanted.retry_policy.model_dump() if wanted.retry_policy else None),
        event_delivery=_delivery(wanted, raw),
    )
    server = context(request)
    run = await submit.submit_ad_hoc(server.database, submission, server.now())
    return Answer(run.to_dict(), 201)


@router.call("GET", "/runs", READ, answer=RunsOut, refuses=(400,))
async def list_runs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    starting_after: str | None = None,
    ending_before: str | None = None,
    state: str | None = None,
    status: str | None = None,
    op_definition: str | None = None,
    image: str | None = None,
    created_gte: Annotated[int | None, Query(alias="created[gte]")] = None,
    created_lte: Annotated[int | None, Query(alias="created[lte]")] = None,
    created_gt: Annotated[int | None, Query(alias="created[gt]")] = None,
    created_lt: Annotated[int | None, Query(alias="created[lt]")] = None,
) -> Response:
    """Newest first, in pages."""
    filters = Filters(
        state=_state(state, status),
        op_definition=op_definition or None,
        image=image or None,
        created_gte=_moment(created_gte),
        created_lte=_moment(created_lte),
        created_gt=_moment(created_gt),
        created_lt=_moment(created_lt),
    )
    page = await query.page(
        context(request).database, filters, limit, starting_after=starting_after, ending_before=ending_before
    )
    return Answer(page.to_dict())


@router.call("GET", "/runs/{run_id}", READ, answer=RunOut, refuses=(404,))
async def get_run(request: Request, run_id: str) -> Response:
    """One run, with its current attempt's newest events."""
    return await _shown(request, run_id)


@router.hot("PATCH", "/runs/{run_id}", SUBMIT, body=UpdateRun, answer=RunOut, statuses=(200, 400, 404, 413, 422))
async def update_run(request: Request) -> Response:
    """Set state, outputs or priority."""
    run_id, server = request.path_params["run_id"], context(request)
    body = await read_body(request)
    wanted, raw = checked(UpdateRun, parse(body)), members(body)
    outputs = limited(raw["outputs"], "outputs", JSON_LIMIT) if wanted.outputs is not None else None
    changes = update.Update(wanted.state, outputs, wanted.priority)
    await update.update(server.database, run_id, changes, server.now())
    return await _shown(request, run_id)


@router.call("POST", "/runs/{run_id}/retry", SUBMIT, answer=RunOut, refuses=(400, 404))
async def retry_run(request: Request, run_id: str) -> Response:
    """Open a new attempt, beyond the budgets."""
    server = context(request)
    await retry.retry(server.database, run_id, server.now())
    return await _shown(request, run_id)


@router.call("POST", "/runs/{run_id}/cancel", SUBMIT, answer=RunOut, refuses=(400, 404))
async def cancel_run(request: Request, run_id: str) -> Response:
    """Cancel; the worker stops it."""
    server = context(request)
    await cancel.cancel(server.database, run_id, server.now())
    return await _shown(request, run_id)


@router.call("GET", "/runs/{run_id}/events", READ, answer=EventsOut, refuses=(404,))
async def list_events(
    request: Request, run_id: str, after: EventNumber = -1, attempt: AttemptNumber = None
) -> Response:
    """The events with a number above `after`, at most 1,000."""
    run, found, has_more = await query.events_of(context(request).database, run_id, after, attempt)
    rows = [{**event.to_dict(), "state": run.state} for event in found]
    return Answer({"events": rows, "has_more": has_more})


@router.hot(
    "POST",
    "/runs/{run_id}/events",
    SUBMIT,
    body=EventBody,
    answer=RunOut,
    statuses=(200, 400, 404, 409, 413, 422),
)
async def add_event(request: Request) -> Response:
    """Report an event from outside; the whole run is answered."""
    run_id, server = request.path_params["run_id"], context(request)
    body = await read_body(request)
    said, raw = checked(EventBody, parse(body)), members(body)
    event = happening(said.type, said.msg, said.payload, raw.get("payload"))
    await append.append(server.database, run_id, event, server.now(), attempt=said.attempt)
    return await _shown(request, run_id)


@router.call("GET", "/runs/{run_id}/attempts", READ, answer=list[AttemptOut], refuses=(404,))
async def list_attempts(request: Request, run_id: str) -> Response:
    """Every attempt, oldest first."""
    found = await query.attempts_of(context(request).database, run_id)
    return Answer([attempt.to_dict() for attempt in found])


async def _shown(request: Request, run_id: str) -> Response:
    return Answer((await query.get(context(request).database, run_id)).to_dict())


def _delivery(wanted: CreateRun, raw: dict[str, Any]) -> EventDelivery | None:
    if wanted.event_delivery is None:
        return None
    return EventDelivery(wanted.event_delivery.topic, members(raw["event_delivery"]).get("attributes") or {})


def _state(state: str | None, status: str | None) -> OpRunState | None:
    if state and status and state != status:
        raise InvalidQuery("state and status must match when both are provided")
    wanted = state or status
    if not wanted:
        return None
    if wanted not in OpRunState.__members__:
        raise InvalidQuery(f"Invalid state '{wanted}'")
    return OpRunState(wanted)


def _moment(unix_s: int | None) -> datetime | None:
    try:
        return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidQuery("Invalid created timestamp") from error
