"""A function's signature as the specs of its inputs and outputs: `{name: {"type", "required", "default"}}`.

The types of the wire are `string int float bool list dict any file`. A default, or `Optional`, makes an input optional.
Outputs come from a return annotation that is a TypedDict; any other leaves them unsaid.
"""

import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, Union

from gyoza.op.author import Failure

WIRE_TYPES: Dict[Any, str] = {
    str: "string",
    int: "int",
    float: "float",
    bool: "bool",
    list: "list",
    dict: "dict",
    Path: "file",
    Any: "any",
    inspect.Parameter.empty: "any",
}
UNIONS = (Union, getattr(types, "UnionType", Union))
"""`Optional[int]` and, from Python 3.10 on, `int | None`."""


class Misuse(Failure):
    """The op cannot be run or read as it stands: a sentence for its author, and no use in trying again."""


class Input(NamedTuple):
    """One parameter. `required` is the wire's view; `has_default` is Python's: `x: Optional[int]` has neither."""

    name: str
    type: str
    required: bool
    has_default: bool
    default: Any

    def spec(self) -> Dict[str, Any]:
        return {"type": self.type, "required": self.required, "default": self.default}


def inputs_of(function: Callable[..., Any]) -> List[Input]:
    hints = _hints(function, function)
    return [_input(function, p, hints.get(p.name, p.empty)) for p in inspect.signature(function).parameters.values()]


def input_specs(function: Callable[..., Any]) -> Dict[str, Dict[str, Any]]:
    return {each.name: each.spec() for each in inputs_of(function)}


def output_specs(function: Callable[..., Any]) -> Dict[str, Dict[str, Any]]:
    returned: Any = _hints(function, function).get("return")
    if not _is_typed_dict(returned):
        return {}
    required = returned.__required_keys__
    specs: Dict[str, Dict[str, Any]] = {}
    for name, annotation in _hints(returned, function).items():
        kind, optional = _wire_type(annotation, f"output '{name}' of {_name(function)}")
        specs[name] = {"type": kind, "required": name in required and not optional, "default": None}
    return specs


def _input(function: Callable[..., Any], parameter: inspect.Parameter, annotation: Any) -> Input:
    where = f"parameter '{parameter.name}' of {_name(function)}"
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise Misuse(f"{where} cannot be an input: every input needs a name of its own")
    kind, optional = _wire_type(annotation, where)
    has_default = parameter.default is not parameter.empty
    default = _plain(parameter.default) if has_default else None
    return Input(parameter.name, kind, not (optional or has_default), has_default, default)


def _wire_type(annotation: Any, where: str) -> Tuple[str, bool]:
    """The wire's name of a type, and whether None is allowed too."""
    if typing.get_origin(annotation) in UNIONS:
        members = [each for each in typing.get_args(annotation) if each is not type(None)]
        if len(members) == 1:
            return _wire_type(members[0], where)[0], True
    kind = dict if _is_typed_dict(annotation) else typing.get_origin(annotation) or annotation
    if kind not in WIRE_TYPES:
        known = ", ".join(getattr(each, "__name__", str(each)) for each in list(WIRE_TYPES)[:-1])
        raise Misuse(f"{where} has the type {annotation}, which the wire does not know: use one of {known}")
    return WIRE_TYPES[kind], False


def _plain(default: Any) -> Any:
    """A default as the definition shows it; one that JSON cannot say is left to the function itself."""
    try:
        return json.loads(json.dumps(default, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _hints(of: Any, function: Callable[..., Any]) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(of)
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise Misuse(f"The signature of {_name(function)} cannot be read: {error}") from error


def _is_typed_dict(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "__required_keys__")


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__qualname__', function)}()"
