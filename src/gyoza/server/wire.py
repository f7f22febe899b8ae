"""JSON at the edge: read strictly, kept as it was received, written once.

What users send is stored and given back equal in meaning: key order, big exponents and long decimals survive. Therefore
bodies are read twice: once into Python values, to be checked, and once into raw slices of the text, to be kept.
"""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec
from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from gyoza.models.errors import Fault, Malformed, TooLarge
from gyoza.models.lifecycle import EventType
from gyoza.policy.life import Happening

Shape = TypeVar("Shape", bound=BaseModel)

BODY_LIMIT = 16 * 2**20
JSON_LIMIT = 4 * 2**20
"""Bytes of inputs and of outputs."""
EVENT_LIMIT = 64 * 2**10
"""Bytes of an event's msg and of its payload."""
NESTING = 100
_DISCARDED = 256 * 2**20
_INT64 = range(-(2**63), 2**63)


class Answer(Response):
    """A JSON answer; msgspec splices in raw JSON where the values hold it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encode(content)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The whole body; raises TooLarge after the rest of it was taken in, so that the connection survives."""
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


def parse(body: bytes) -> Any:
    """Python values of one JSON text; Malformed names every place that could not be given back as it came."""
    try:
        value = json.loads(body.decode(), parse_constant=_Constant)
    except UnicodeDecodeError as error:
        raise Malformed([Fault("", f"not UTF-8: {error.reason} at byte {error.start}", "not_utf8")]) from error
    except ValueError as error:
        raise Malformed([Fault("", f"not JSON: {error}", "not_json")]) from error
    except RecursionError as error:
        raise Malformed([_too_deep("")]) from error
    if faults := list(_faults(value, "", 1)):
        raise Malformed(faults[:100])
    return value


def members(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, each as the text that was received."""
    return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])


def checked(shape: type[Shape], value: Any) -> Shape:
    """`value` in the given shape; Malformed names every fault."""
    try:
        return TypeAdapter(shape).validate_python(value)
    except ValidationError as error:
        raise Malformed([_fault(detail) for detail in error.errors()]) from error


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


def pointer(*parts: object) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def fault_of(error: Mapping[str, Any], skip: int = 0) -> Fault:
    """A fault from one of pydantic's error entries; `skip` leading parts of its place are not the body's."""
    return Fault(pointer(*error["loc"][skip:]), str(error["msg"]), str(error["type"]))


def _fault(error: Any) -> Fault:
    return fault_of(error)


class _Constant(float):
    """NaN or an infinity, which JSON does not have."""

    def __new__(cls, text: str) -> "_Constant":
        return super().__new__(cls, text.replace("Infinity", "inf"))


def _faults(value: Any, at: str, depth: int) -> Iterator[Fault]:
    if isinstance(value, str):
        yield from _text_faults(value, at)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(at, "not a number that JSON and a double can hold", "number_out_of_range")
    elif isinstance(value, int):
        if value not in _INT64:
            yield Fault(at, "beyond 64 bits: send it as a string", "integer_out_of_range")
    elif depth > NESTING and isinstance(value, dict | list):
        yield _too_deep(at)
    elif isinstance(value, dict):
        for key, member in cast(dict[str, Any], value).items():
            yield from _text_faults(key, at)
            yield from _faults(member, at + pointer(key), depth + 1)
    elif isinstance(value, list):
        for index, member in enumerate(cast(list[Any], value)):
            yield from _faults(member, f"{at}/{index}", depth + 1)


def _text_faults(text: str, at: str) -> Iterator[Fault]:
    if "\0" in text:
        yield Fault(at, "NUL characters cannot be kept", "nul_character")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        yield Fault(at, "a lone surrogate is no text", "lone_surrogate")


def _too_deep(at: str) -> Fault:
    return Fault(at, f"nested deeper than {NESTING} levels", "too_deep")
