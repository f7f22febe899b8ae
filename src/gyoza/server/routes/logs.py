"""Logs: sent in parts by the worker that holds an attempt, read and followed by people."""

from typing import Annotated, Any

from fastapi import Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from gyoza.control import logs
from gyoza.server.answers import AppendedOut
from gyoza.server.context import READ, WORKER, Routes, caller, context
from gyoza.server.routes.runs import AttemptNumber
from gyoza.server.wire import Answer, read_body

router = Routes("logs")

TEXT = "text/plain; charset=utf-8"
Offset = Annotated[int, Query(ge=0, le=2**63 - 1)]
_AS_IT_IS = {"X-Content-Type-Options": "nosniff", "X-Accel-Buffering": "no"}
"""For browsers: it is no page, whatever an op wrote. For proxies: send it on at once."""
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_HEADERS = {
    "Gyoza-Attempt": ("integer", "whose log it is"),
    "Gyoza-Log-Offset": ("integer", "where this answer starts in the log"),
    "Gyoza-Log-Size": ("integer", "how many bytes the log has now"),
    "Gyoza-Log-Cut": ("boolean", "it reached its limit: what came later was dropped"),
    "Gyoza-Log-Ended": ("boolean", "nothing more is expected"),
}
_LOG: dict[str, Any] = {
    "description": "the bytes",
    "headers": {name: {"description": of, "schema": {"type": kind}} for name, (kind, of) in _HEADERS.items()},
    "content": {TEXT: _BYTES},
}


@router.call(
    "PUT",
    "/runs/{run_id}/attempts/{attempt}/logs",
    WORKER,
    answer=AppendedOut,
    refuses=(404, 409, 413),
    openapi_extra={"requestBody": {"content": {"application/octet-stream": _BYTES}}},
)
async def append_log(
    request: Request,
    run_id: str,
    attempt: Annotated[int, Path(ge=1, le=2**31 - 1)],
    offset: Offset,
    lease: Annotated[str, Header(alias="Gyoza-Lease")],
) -> Response:
    """Add the body to the log of an attempt, from `offset` on; what is there already is not added again."""
    server = context(request)
    sent = logs.Sent(run_id, attempt, lease, caller(request).worker, offset, await read_body(request))
    return Answer((await logs.append(server.database, server.shelf, sent, server.log_limit)).to_dict())


@router.call(
    "GET",
    "/runs/{run_id}/logs",
    READ,
    refuses=(404,),
    response_class=StreamingResponse,
    responses={200: _LOG},
)
async def read_log(
    request: Request, run_id: str, attempt: AttemptNumber = None, offset: Offset = 0, follow: bool = False
) -> Response:
    """What an attempt wrote, the current one by default; with `follow`, until nothing comes any more."""
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
