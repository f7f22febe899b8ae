"""Requests that may be sent twice: the Idempotency-Key on the way in, the answer it stands for on the way out."""

import hashlib
import re

from fastapi import Request, Response

from gyoza.control.once import Asked, Reply
from gyoza.models.errors import Fault, Malformed
from gyoza.models.strictjson import pointer
from gyoza.server.context import caller

_HEADER = "Idempotency-Key"
_FORM = re.compile(r"[\x21-\x7e]{1,255}")


def asked(request: Request, body: bytes) -> Asked | None:
    """None without the header. Another path, query or body under the same key is another request."""
    key = request.headers.get(_HEADER)
    if key is None:
        return None
    if not _FORM.fullmatch(key):
        fault = "must be 1 to 255 visible ASCII characters, such as a UUID, without spaces"
        raise Malformed([Fault(pointer("header", _HEADER.lower()), fault, "wrong_format")])
    target = f"{request.method} {request.url.path}?{request.url.query}\n"
    return Asked(caller(request).name, key, hashlib.sha256(target.encode() + body).digest())


def answered(reply: Reply) -> Response:
    """Byte for byte what was answered first; a header tells when this is not the first time."""
    headers = {"Idempotency-Replayed": "true"} if reply.again else None
    return Response(reply.body, reply.status, headers, media_type="application/json")
