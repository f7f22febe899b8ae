"""Files: streamed in and out, never held in memory."""

import re
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import FileResponse

from gyoza.control import files
from gyoza.control.once import Reply
from gyoza.models.errors import FileMissing, RangeNotSatisfiable
from gyoza.server.answers import FileOut
from gyoza.server.context import READ, SUBMIT, WORKER, Routes, Stream, caller, context
from gyoza.server.repeats import answered, asked
from gyoza.server.wire import check_encoding, encode

router = Routes("files")

_BYTES = Stream("*/*")
_RANGE = {
    "name": "Range",
    "in": "header",
    "description": "a part of the bytes, such as `bytes=0-99`; what is no range is passed over",
    "schema": {"type": "string"},
}
_RANGES = re.compile(r"bytes=(\d{1,18}-\d{0,18}|-\d{1,18})(,(\d{1,18}-\d{0,18}|-\d{1,18}))*")
_SENT = {
    "X-Gyoza-Sha256": ("string", "of the whole file, in hexadecimal"),
    "Accept-Ranges": ("string", "`bytes`"),
}


@router.call("POST", "/files", SUBMIT, WORKER, body=_BYTES, answer=FileOut, status=(201, 200), repeats=True)
async def upload_file(request: Request, name: Annotated[str, Query(min_length=1, max_length=255)] = "file") -> Response:
    """Keep the body as a file.

    200 where the same bytes are kept under this name and type already. `Content-Type` is kept as the file's type.
    """
    check_encoding(request)
    server = context(request)
    media_type = request.headers.get("content-type", "application/octet-stream")
    async with server.files.received(request.stream()) as arrived:
        found = files.Upload(arrived.sha256, arrived.size, name, media_type[:255])
        once = asked(request, f"{media_type} {arrived.sha256}".encode())
        reply = await files.keep(server.database, found, arrived.adopt, _shown, server.now(), once)
    return answered(reply)


@router.call(
    "GET",
    "/files/{file_id}",
    READ,
    WORKER,
    answer=_BYTES,
    status=(200, 206),
    headers=_SENT,
    parameters=(_RANGE,),
    refuses=(FileMissing, RangeNotSatisfiable),
)
async def download_file(request: Request, file_id: str) -> Response:
    """The bytes, whole or in ranges."""
    server = context(request)
    file = await files.get_for(server.database, file_id, caller(request))
    path = server.files.path(file.sha256)
    if not path.is_file():
        raise FileMissing(file_id)
    if not _understood(request.headers.get("range", "")):
        request.scope["headers"] = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    digest = {"X-Gyoza-Sha256": file.sha256}
    return FileResponse(path, filename=file.name, media_type=file.media_type, headers=digest)


@router.call("DELETE", "/files/{file_id}", SUBMIT, status=204, refuses=(FileMissing,))
async def delete_file(request: Request, file_id: str) -> Response:
    """Forget the file; its bytes go with the last file that has them."""
    server = context(request)
    await files.delete(server.database, file_id, server.files.discard)
    return Response(status_code=204)


def _understood(wanted: str) -> bool:
    """HTTP has a server pass over a Range in other units than bytes, and lets it pass over one that is backwards."""
    if not _RANGES.fullmatch(wanted):
        return False
    ends = [each.split("-") for each in wanted.removeprefix("bytes=").split(",")]
    return all(not (first and last) or int(first) <= int(last) for first, last in ends)


def _shown(file: files.File, is_new: bool) -> Reply:
    return Reply(201 if is_new else 200, encode(file.to_dict()))
