"""What an event may say: its msg, and the members of its payload that mean something. Others are kept as they are."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gyoza.models.errors import Fault
from gyoza.models.lifecycle import EventType
from gyoza.models.reasons import SERVER_ALONE, Reason

Check = tuple[Callable[[Any], bool], str]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_from_outside(value: Any) -> bool:
    return value in [reason.value for reason in Reason if reason not in SERVER_ALONE]


_TEXT: Check = (lambda value: isinstance(value, str), "is a text")
_WHOLE: Check = (lambda value: _whole(value) and -(2**31) <= value < 2**31, "is a whole number")
_BOOL: Check = (lambda value: isinstance(value, bool), "is true or false")
_OBJECT: Check = (lambda value: isinstance(value, dict), "is a JSON object")
_LABEL: Check = (
    lambda value: isinstance(value, str | int | float) and not isinstance(value, bool),
    "is a text or a number",
)
_REASON: Check = (_is_from_outside, "is one of the reasons that a worker or a client may give")
_PERCENT: Check = (lambda value: _whole(value) and 0 <= value <= 100, "is a whole number from 0 to 100")

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
    fits, what = msg(kind)
    if not fits(said):
        yield Fault("/msg", f"the msg of {kind} {what}", "invalid_msg")
    for name, (fits, what) in PAYLOADS.get(kind, {}).items():
        value = (payload or {}).get(name)
        if value is not None and not fits(value):
            yield Fault(f"/payload/{name}", f"'{name}' {what}", "invalid_payload")
