"""Columns that hold more than a plain value, and batches as one parameter."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gyoza.models.definition import EventDelivery, RetryPolicy, Timeouts


def rows(of: Iterable[Mapping[str, Any]]) -> str:
    """What `json_to_recordset` reads."""
    return msgspec.json.encode(list(of)).decode()


def retry_policy(max_attempts: int, rest: msgspec.Raw | None) -> RetryPolicy:
    """From its two columns: the number that constraints watch over, and the rest, where it is not the default."""
    return RetryPolicy.from_dict(
        {**(msgspec.json.decode(rest) if rest is not None else {}), "max_attempts": max_attempts}
    )


def timeouts(raw: msgspec.Raw | None) -> Timeouts:
    return Timeouts.from_dict(msgspec.json.decode(raw) if raw is not None else None)


def event_delivery(raw: msgspec.Raw | None) -> EventDelivery | None:
    """The attributes stay the JSON that was received."""
    if raw is None:
        return None
    parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return EventDelivery(msgspec.json.decode(parts["topic"]), parts["attributes"])
