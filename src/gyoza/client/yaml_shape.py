"""A YAML file read against a table of what it may say, so that every fault can name its line and key.

A Reader takes a node and the key it stands under, and gives the value or raises Fault. A text is what is written:
`version: 1.10` is "1.10" and `name: yes` is "yes", whatever YAML makes of them.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any, cast

import yaml

Reader = Callable[[yaml.Node, str], Any]

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_CALLED = {_NULL: "nothing", "tag:yaml.org,2002:seq": "a list", "tag:yaml.org,2002:map": "a mapping"}


class Fault(Exception):
    """What is wrong, and in which line (from 1)."""

    def __init__(self, line: int, sentence: str):
        super().__init__(sentence)
        self.line = line


def read(source: str, top: Reader) -> Any:
    try:
        node: yaml.Node | None = cast(Any, yaml).compose(source, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Fault(mark.line + 1 if mark else 1, f"this is not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise Fault(1, f"this is not YAML: {_first_line(error)}") from error
    if node is None:
        raise Fault(1, "this file is empty")
    return top(node, "")


def text(node: yaml.Node, key: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL:
        raise _unlike(node, key, "a text")
    return cast(str, node.value)


def pattern(regex: str, says: str) -> Reader:
    def reader(node: yaml.Node, key: str) -> str:
        value = text(node, key)
        if not re.fullmatch(regex, value):
            raise fault(node, f"'{key}' must be {says}, not '{value}'")
        return value

    return reader


def one_of(*choices: str) -> Reader:
    def reader(node: yaml.Node, key: str) -> str:
        value = text(node, key)
        if value not in choices:
            raise fault(node, f"'{key}' must be one of {', '.join(choices)}, not '{value}'{_meant(value, choices)}")
        return value

    return reader


def whole(least: int) -> Reader:
    def reader(node: yaml.Node, key: str) -> int:
        value = _plain(node) if node.tag == _INT else None
        if value is None or value < least:
            raise _unlike(node, key, f"a whole number, {least} or more")
        return value

    return reader


def number(node: yaml.Node, key: str) -> float:
    value = _plain(node) if node.tag in (_INT, _FLOAT) else None
    if value is None or not isfinite(value) or value < 0:
        raise _unlike(node, key, "a number, 0 or more")
    return value


def boolean(node: yaml.Node, key: str) -> bool:
    if node.tag != _BOOL:
        raise _unlike(node, key, "true or false")
    return _plain(node)


def anything(node: yaml.Node, key: str) -> Any:
    """Whatever JSON can say; a date, for one, it cannot."""
    value = _plain(node)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise fault(node, f"'{key}' must be what JSON can say: put dates and the like in quotes") from error
    return value


def list_of(item: Reader) -> Reader:
    def reader(node: yaml.Node, key: str) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            raise _unlike(node, key, "a list")
        return [item(each, f"{key}[{i}]") for i, each in enumerate(cast("list[yaml.Node]", node.value))]

    return reader


def mapping_of(value: Reader) -> Reader:
    def reader(node: yaml.Node, key: str) -> dict[str, Any]:
        return {name: value(each, f"{key}.{name}") for name, _, each in _pairs(node, key)}

    return reader


def section(table: Mapping[str, Reader]) -> Reader:
    """A mapping with these keys, none of them required; one that is left empty counts as left out."""

    def reader(node: yaml.Node, key: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, at, value in _pairs(node, key):
            full = f"{key}.{name}" if key else name
            if name not in table:
                raise fault(at, f"'{full}' is not a key here{_meant(name, table) or ': it may be ' + ', '.join(table)}")
            if value.tag != _NULL:
                found[name] = table[name](value, full)
        return found

    return reader


def fault(node: yaml.Node, sentence: str) -> Fault:
    return Fault(node.start_mark.line + 1, sentence)


def _pairs(node: yaml.Node, key: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _unlike(node, key, "a mapping (key: value)")
    seen: set[str] = set()
    for at, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        name = text(at, key)
        if name in seen:
            raise fault(at, f"'{key}.{name}' stands here twice" if key else f"'{name}' stands here twice")
        seen.add(name)
        yield name, at, value


def _plain(node: yaml.Node) -> Any:
    try:
        return cast(Any, yaml.constructor.SafeConstructor()).construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise fault(node, f"this YAML cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _unlike(node: yaml.Node, key: str, wanted: str) -> Fault:
    place = f"'{key}'" if key else "this file"
    written = f"'{node.value}'" if isinstance(node, yaml.ScalarNode) and node.value else None
    return fault(node, f"{place} must be {wanted}, not {written or _CALLED.get(node.tag, 'this')}")


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean '{close[0]}'?" if close else ""
