"""What an event may say: its msg, and the members of its payload that mean something. Others are kept as they are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gyoza.models.errors import Fault
from gyoza.models.lifecycle import EventType
from gyoza.models.reasons import SERVER_ALONE, Reason


@dataclass(frozen=True)
class Check:
    """The same said three times: as code, in words, and in JSON Schema's."""

    fits: Callable[[Any], bool]
    what: str
    schema: Mapping[str, Any]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_INT32 = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_FROM_OUTSIDE = [reason.value for reason in Reason if reason not in SERVER_ALONE]

_TEXT = Check(lambda value: isinstance(value, str), "is a text", {"type": "string"})
_WHOLE = Check(lambda value: _whole(value) and -(2**31) <= value < 2**31, "is a whole number", _INT32)
_BOOL = Check(lambda value: isinstance(value, bool), "is true or false", {"type": "boolean"})
_OBJECT = Check(lambda value: isinstance(value, dict), "is a JSON object", {"type": "object"})
_LABEL = Check(
    lambda value: isinstance(value, str | int | float) and not isinstance(value, bool),
    "is a text or a number",
    {"type": ["string", "number"]},
)
_REASON = Check(
    lambda value: value in _FROM_OUTSIDE,
    "is one of the reasons that a worker or a client may give",
    {"enum": _FROM_OUTSIDE},
)
_PERCENT = Check(
    lambda value: _whole(value) and 0 <= value <= 100,
    "is a whole number from 0 to 100",
    {"type": "integer", "minimum": 0, "maximum": 100},
)

PAYLOADS: Mapping[EventType, Mapping[str, Check]] = {
    EventType.STARTED: {"worker_id": _TEXT, "gpu_id": _LABEL},
    EventType.COMPLETED: {"outputs": _OBJECT},
    EventType.FAILED: {
        "error_message": _TEXT,
        "reason": _REASON,
        "exit_code": _WHOLE,
        "signal": _WHOLE,
        "retryable": _BOOL,
    },
    EventType.RETRIED: {"force": _BOOL},
}
"""The members that mean something, by type; null counts as absent."""


def msg(kind: EventType) -> Check:
    """What the msg of such an event must be."""
    return _PERCENT if kind is EventType.PROGRESS else _TEXT


def faults(kind: EventType, said: Any, payload: Mapping[str, Any] | None) -> Iterator[Fault]:
    if not msg(kind).fits(said):
        yield Fault("/msg", f"the msg of {kind} {msg(kind).what}", "invalid_msg")
    for name, check in PAYLOADS.get(kind, {}).items():
        value = (payload or {}).get(name)
        if value is not None and not check.fits(value):
            yield Fault(f"/payload/{name}", f"'{name}' {check.what}", "invalid_payload")
