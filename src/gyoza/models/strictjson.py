"""JSON that can be kept and given back: what a double, 64 bits or PostgreSQL cannot hold is refused."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from gyoza.models.errors import Fault, Malformed

NESTING = 100
MOST_FAULTS = 100
_INT64 = range(-(2**63), 2**63)


def parse(body: bytes) -> Any:
    """Python values of one JSON text; Malformed names every place that could not be given back as it came."""
    value = read(body)
    check(value)
    return value


def read(body: bytes) -> Any:
    """Python values of what is JSON by its syntax, for a `check` of its parts."""
    try:
        return json.loads(body.decode(), parse_constant=_Constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise Malformed([Fault("", f"not UTF-8: {error.reason} at byte {error.start}", "not_utf8")]) from error
    except ValueError as error:
        raise Malformed([Fault("", f"not JSON: {error}", "not_json")]) from error
    except RecursionError as error:
        raise Malformed([_too_deep("")]) from error


def check(value: Any, levels: int = NESTING) -> None:
    """Raises Malformed for what could not be kept, or is nested deeper than so many levels."""
    if faults := list(islice(_faults(value, "", levels), MOST_FAULTS)):
        raise Malformed(faults)


def pointer(*parts: object) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def within(faults: Iterable[Fault], *parts: object) -> list[Fault]:
    """The same faults, seen from further out: `parts` lead to where they were found."""
    return [replace(fault, pointer=pointer(*parts) + fault.pointer) for fault in faults]


class _Constant(float):
    """NaN or an infinity, which JSON does not have."""

    def __new__(cls, text: str) -> "_Constant":
        return super().__new__(cls, text.replace("Infinity", "inf"))


class _Repeating(dict[str, Any]):
    """An object that names a member twice: readers do not agree on which one counts."""

    repeated: str = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeating = _Repeating(found)
    seen: set[str] = set()
    repeating.repeated = next(name for name, _ in pairs if name in seen or seen.add(name))
    return repeating


def _faults(value: Any, at: str, levels: int) -> Iterator[Fault]:
    if isinstance(value, str):
        yield from text_faults(value, at)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(at, "not a number that JSON and a double can hold", "number_out_of_range")
    elif isinstance(value, int):
        if value not in _INT64:
            yield Fault(at, "beyond 64 bits: send it as a string", "integer_out_of_range")
    elif not levels and isinstance(value, dict | list):
        yield _too_deep(at)
    elif isinstance(value, _Repeating):
        yield Fault(at, f"the member {json.dumps(value.repeated)} is there twice: say it once", "duplicate_member")
    elif isinstance(value, dict):
        for key, member in cast(dict[str, Any], value).items():
            # Below a key that is no text there is no place that a pointer could name.
            yield from list(text_faults(key, at)) or _faults(member, at + pointer(key), levels - 1)
    elif isinstance(value, list):
        for index, member in enumerate(cast(list[Any], value)):
            yield from _faults(member, f"{at}/{index}", levels - 1)


def text_faults(text: str, at: str) -> Iterator[Fault]:
    if "\0" in text:
        yield Fault(at, "NUL characters cannot be kept", "nul_character")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        yield Fault(at, "a lone surrogate is no text", "lone_surrogate")


def _too_deep(at: str) -> Fault:
    return Fault(at, f"nested deeper than {NESTING} levels", "too_deep")
