"""What schemathesis must know of this API beyond its OpenAPI document."""

from typing import Any

import schemathesis

SAFE = 2**53


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """No waiting: it would be right, and take all night. And what JSON Schema has no words for."""
    query, body = case.query or {}, case.body
    if query.get("follow") in (True, "true"):
        case.query["follow"] = False
    if case.operation.path.endswith("/wait") and is_wait(number(query.get("timeout_s", 25))):
        case.query["timeout_s"] = 0.01
    if isinstance(body, dict) and is_wait(body.get("wait_s")):
        body["wait_s"] = 0.01
    if case.meta is not None and case.meta.generation.mode.is_positive and isinstance(body, dict | list):
        case.body = sayable(body)


def is_wait(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 25


def number(value: Any) -> Any:
    """In a query it may be the text of one."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def sayable(value: Any, name: str = "") -> Any:
    """JSON Schema cannot tell 1.0 from 1, 53 bits from more, three decimals from four, or bound a time."""
    if isinstance(value, dict):
        return {key: sayable(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [sayable(member, name) for member in value]
    if isinstance(value, str) and name == "run_at" and value[:1] > "2":
        return f"2{value[1:]}"
    if isinstance(value, float) and value.is_integer() and abs(value) < SAFE:
        return int(value)
    if isinstance(value, float) and name == "cpu":
        return round(value, 3)
    if isinstance(value, int) and abs(value) >= SAFE:
        return 0
    return value
