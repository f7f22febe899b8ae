"""JSON at the edge: read strictly, kept as it was received, written once.

What users send is stored and given back equal in meaning: key order, big exponents and long decimals survive. Therefore
bodies are read twice: once into Python values, to be checked, and once into raw slices of the text, to be kept.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from gyoza.models.errors import Fault, Malformed, TooLarge
from gyoza.models.lifecycle import EventType
from gyoza.models.strictjson import MOST_FAULTS, pointer
from gyoza.policy.life import Happening
from gyoza.server.faults import fault_of

Shape = TypeVar("Shape", bound=BaseModel)

BODY_LIMIT = 16 * 2**20
JSON_LIMIT = 4 * 2**20
"""Bytes of inputs and of outputs."""
EVENT_LIMIT = 64 * 2**10
"""Bytes of an event's msg and of its payload."""
MOST_MEMBERS = 1000
"""Of a body that knows its members: naming each of a million that it does not know would take minutes."""
_DISCARDED = 256 * 2**20


class Answer(Response):
    """A JSON answer; msgspec splices in raw JSON where the values hold it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encode(content)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The whole body; raises TooLarge after the rest of it was taken in, so that the connection survives."""
    check_encoding(request)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > _DISCARDED:
            break
    if size > limit:
        raise TooLarge(f"The body is larger than {limit} bytes: send less, or files by POST /files")
    return b"".join(parts)


def check_encoding(request: Request) -> None:
    """A compressed body would be taken for what it is not."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Malformed([Fault("/header/content-encoding", "must be identity: send the body as it is", "wrong_value")])


def members(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, each as the text that was received."""
    return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])


def checked(shape: type[Shape], value: Any) -> Shape:
    """`value` in the given shape; Malformed names every fault, up to MOST_FAULTS."""
    if isinstance(value, dict) and len(cast(Any, value)) > MOST_MEMBERS and shape.model_config.get("extra") == "forbid":
        raise Malformed([Fault("", f"has more than {MOST_MEMBERS} members", "too_long")])
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
        raise Malformed([fault_of(detail) for detail in found]) from error


def limited(raw: msgspec.Raw, name: str, limit: int) -> msgspec.Raw:
    """`raw`, when it is not larger than its bound."""
    if wrong := list(_oversized(pointer(name), raw, limit)):
        raise Malformed(wrong)
    return raw


def happening(
    kind: EventType, msg: Any, payload: Mapping[str, Any] | None, raw: Any, at: datetime | None = None
) -> Happening:
    """An event as it came: `payload` decoded, `raw` its text. Outputs too large for an event are kept apart from it."""
    if payload is None:
        return Happening(kind, msg, None, at, faults=tuple(_oversized("/msg", msg)))
    kept = members(raw)
    outputs = kept.get("outputs") if kind is EventType.COMPLETED else None
    if outputs is not None and len(bytes(raw)) > EVENT_LIMIT:
        del kept["outputs"]
    wrong = (
        *_oversized("/msg", msg),
        *_oversized("/payload", kept),
        *_oversized("/payload/outputs", outputs, JSON_LIMIT),
    )
    return Happening(kind, msg, payload, at, received=kept, outputs=outputs, faults=wrong)


def _oversized(at: str, value: Any, limit: int = EVENT_LIMIT) -> Iterator[Fault]:
    if len(encode(value)) > limit:
        yield Fault(at, f"larger than {limit} bytes: put large data into files", "too_large")
