"""What schemathesis must know of this API beyond its OpenAPI document."""

from typing import Any

import schemathesis

SAFE = 2**53


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """No waiting: it would be right, and take all night. And what JSON Schema has no words for."""
    if isinstance(case.query, dict) and case.query.get("follow") in (True, "true"):
        case.query["follow"] = False
    if (
        isinstance(case.body, dict)
        and isinstance(case.body.get("wait_s"), int | float)
        and 0 < case.body["wait_s"] <= 25
    ):
        case.body["wait_s"] = 0.01
    if case.meta is not None and case.meta.generation.mode.is_positive and isinstance(case.body, dict | list):
        case.body = sayable(case.body)


def is_wait(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 25


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
