"""Runs: how they are asked for, looked at and changed."""

from typing import Annotated

from fastapi import Query, Request, Response

from gyoza.control import append, cancel, query, replay, retry, submit, update
from gyoza.models.errors import (
    AttemptIsLeased,
    DefinitionDisabled,
    DefinitionNotFound,
    InvalidQuery,
    NotAllowedNow,
    OpRunLockedException,
    RunNotFound,
    StaleAttempt,
    TransitionRefused,
)
from gyoza.models.strictjson import parse
from gyoza.server import submission
from gyoza.server.answers import AttemptOut, EventsOut, RunOut, RunsOut
from gyoza.server.context import READ, SUBMIT, Routes, caller, context
from gyoza.server.narrowing import Narrowed
from gyoza.server.repeats import answered, asked
from gyoza.server.schemas import CreateRun, EventBody, Replay, UpdateRun
from gyoza.server.wire import JSON_LIMIT, Answer, checked, happening, limited, members, read_body

router = Routes("runs")

BY_THE_TABLE = (OpRunLockedException, TransitionRefused)

EventNumber = Annotated[int, Query(ge=-1, le=2**31 - 1, description="those with a higher number; -1 is all")]
RunId = Annotated[str | None, Query(json_schema_extra={"format": "uuid"})]
AttemptNumber = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="of this attempt alone")]


@router.hot("POST", "/runs", SUBMIT, body=CreateRun, answer=RunOut, status=201, repeats=True)
async def create_run(request: Request) -> Response:
    """Run an image once, without a definition."""
    body, server = await read_body(request), context(request)
    wanted = submission.ad_hoc(checked(CreateRun, parse(body)), members(body))
    by, once = caller(request).name, asked(request, body)
    return answered(await submit.submit(server.database, wanted, by, submission.one, server.now(), once))


@router.call("GET", "/runs", READ, answer=RunsOut, refuses=(InvalidQuery,))
async def list_runs(
    request: Request,
    filters: Narrowed,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    starting_after: Annotated[RunId, Query(description="the next page: runs older than this one")] = None,
    ending_before: Annotated[RunId, Query(description="the previous page: runs newer than this one")] = None,
) -> Response:
    """Newest first, in pages.

    An empty filter counts as absent.
    """
    page = await query.page(
        context(request).database, filters, limit, starting_after=starting_after, ending_before=ending_before
    )
    return Answer(page.to_dict())


@router.call("GET", "/runs/{run_id}", READ, answer=RunOut, refuses=(RunNotFound,))
async def get_run(request: Request, run_id: str) -> Response:
    """One run, with its current attempt's newest events."""
    return await _shown(request, run_id)


@router.hot(
    "PATCH",
    "/runs/{run_id}",
    SUBMIT,
    body=UpdateRun,
    answer=RunOut,
    refuses=(RunNotFound, NotAllowedNow, *BY_THE_TABLE),
)
async def update_run(request: Request) -> Response:
    """Set state, outputs, priority, or whether it is pinned."""
    run_id, server = request.path_params["run_id"], context(request)
    body = await read_body(request)
    wanted, raw = checked(UpdateRun, parse(body)), members(body)
    outputs = limited(raw["outputs"], "outputs", JSON_LIMIT) if wanted.outputs is not None else None
    changes = update.Update(wanted.state, outputs, wanted.priority, wanted.pinned)
    await update.update(server.database, run_id, changes, server.now())
    return await _shown(request, run_id)


@router.call("POST", "/runs/{run_id}/retry", SUBMIT, answer=RunOut, refuses=(RunNotFound, *BY_THE_TABLE))
async def retry_run(request: Request, run_id: str) -> Response:
    """Open a new attempt, beyond the budgets."""
    server = context(request)
    await retry.retry(server.database, run_id, server.now())
    return await _shown(request, run_id)


@router.call("POST", "/runs/{run_id}/cancel", SUBMIT, answer=RunOut, refuses=(RunNotFound, NotAllowedNow))
async def cancel_run(request: Request, run_id: str) -> Response:
    """Cancel; the worker stops it."""
    server = context(request)
    await cancel.cancel(server.database, run_id, server.now())
    return await _shown(request, run_id)


@router.hot(
    "POST",
    "/runs/{run_id}/replay",
    SUBMIT,
    body=Replay,
    body_required=False,
    answer=RunOut,
    status=201,
    refuses=(RunNotFound, DefinitionNotFound, DefinitionDisabled),
    repeats=True,
)
async def replay_run(request: Request) -> Response:
    """Do it again as a new run.

    The body, if there is one, says what is to differ.
    """
    body, server = await read_body(request), context(request)
    changed = submission.changed(checked(Replay, parse(body or b"{}")))
    run_id, by, once = request.path_params["run_id"], caller(request).name, asked(request, body)
    return answered(await replay.replay(server.database, run_id, changed, by, submission.one, server.now(), once))


@router.call("GET", "/runs/{run_id}/events", READ, answer=EventsOut, refuses=(RunNotFound,))
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
    refuses=(RunNotFound, StaleAttempt, AttemptIsLeased, *BY_THE_TABLE),
)
async def add_event(request: Request) -> Response:
    """Report an event from outside; the whole run is answered."""
    run_id, server = request.path_params["run_id"], context(request)
    body = await read_body(request)
    said, raw = checked(EventBody, parse(body)), members(body)
    event = happening(said.type, said.msg, said.payload, raw.get("payload"))
    await append.append(server.database, run_id, event, server.now(), attempt=said.attempt)
    return await _shown(request, run_id)


@router.call("GET", "/runs/{run_id}/attempts", READ, answer=list[AttemptOut], refuses=(RunNotFound,))
async def list_attempts(request: Request, run_id: str) -> Response:
    """Every attempt, oldest first."""
    found = await query.attempts_of(context(request).database, run_id)
    return Answer([attempt.to_dict() for attempt in found])


async def _shown(request: Request, run_id: str) -> Response:
    return Answer((await query.get(context(request).database, run_id)).to_dict())
