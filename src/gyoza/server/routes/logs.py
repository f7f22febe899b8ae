"""Logs: sent in parts by the worker that holds an attempt, read and followed by people."""

from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from gyoza.control import logs
from gyoza.models.errors import AttemptNotFound, LeaseLost, RunNotFound, TooLarge, WrongOffset
from gyoza.server.answers import AppendedOut
from gyoza.server.context import READ, WORKER, Routes, Stream, caller, context
from gyoza.server.routes.runs import AttemptNumber
from gyoza.server.wire import Answer, read_body

router = Routes("logs")

TEXT = "text/plain; charset=utf-8"
Offset = Annotated[int, Query(ge=0, le=2**63 - 1, description="bytes before this one are left out")]
Follow = Annotated[bool, Query(description="go on with what comes")]
_AS_IT_IS = {"X-Content-Type-Options": "nosniff", "X-Accel-Buffering": "no"}
"""For browsers: it is no page, whatever an op wrote. For proxies: send it on at once."""
_HEADERS = {
    "Gyoza-Attempt": ("integer", "whose log it is"),
    "Gyoza-Log-Offset": ("integer", "where this answer starts in the log"),
    "Gyoza-Log-Size": ("integer", "how many bytes the log has now"),
    "Gyoza-Log-Cut": ("boolean", "it reached its limit: what came later was dropped"),
    "Gyoza-Log-Ended": ("boolean", "nothing more is expected"),
}


@router.call(
    "PUT",
    "/runs/{run_id}/attempts/{attempt}/logs",
    WORKER,
    body=Stream("application/octet-stream"),
    answer=AppendedOut,
    refuses=(RunNotFound, AttemptNotFound, LeaseLost, WrongOffset, TooLarge),
)
async def append_log(
    request: Request,
    run_id: str,
    attempt: int,
    offset: Annotated[int, Query(ge=0, le=2**63 - 1, description="where the body begins in the log")],
    lease: Annotated[str, Header(alias="Gyoza-Lease", description="the attempt's `lease_token`")],
) -> Response:
    """Add the body to the log of an attempt.

    From `offset` on; what is there already is not added again.
    """
    server = context(request)
    sent = logs.Sent(run_id, attempt, lease, caller(request).worker, offset, await read_body(request))
    return Answer((await logs.append(server.database, server.shelf, sent, server.log_limit)).to_dict())


@router.call(
    "GET",
    "/runs/{run_id}/logs",
    READ,
    answer=Stream(TEXT),
    headers=_HEADERS,
    refuses=(RunNotFound, AttemptNotFound),
)
async def read_log(
    request: Request, run_id: str, attempt: AttemptNumber = None, offset: Offset = 0, follow: Follow = False
) -> Response:
    """Read or follow the log of an attempt.

    What it wrote so far, of the current attempt by default; with `follow`, until nothing comes any more.
    """
    server = context(request)
    place = (run_id, attempt, offset)
    if follow:
        return _streamed(await logs.follow(server.database, server.shelf, server.bell, *place))
    reading = await logs.read(server.database, server.shelf, *place)
    return _streamed(reading, {"Content-Length": str(max(reading.log.size - reading.start, 0))})


def _streamed(reading: logs.Reading, more: dict[str, str] | None = None) -> Response:
    log = reading.log
    values = (log.attempt, reading.start, log.size, log.cut, log.ended)
    headers = {name: str(value).lower() for name, value in zip(_HEADERS, values, strict=True)}
    return StreamingResponse(reading.parts, media_type=TEXT, headers={**headers, **_AS_IT_IS, **(more or {})})
