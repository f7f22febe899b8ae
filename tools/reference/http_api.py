"""The page of the HTTP API: every call and every shape, from the OpenAPI document."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gyoza.server.app import openapi, routed

from .pages import code, codes, table

Json = dict[str, Any]
COMMON = ("unauthorized", "forbidden", "malformed", "internal_error", "database_unavailable")
"""Refusals of nearly every call, said once."""


def blocks() -> dict[str, str]:
    document = openapi(routed())
    common = ", ".join(map(_code_link, COMMON))
    return {"common": f"{common}.", "calls": _calls(document), "shapes": _shapes(document)}


def occurrences() -> dict[str, list[str]]:
    """By code of a refusal: the calls that may answer with it."""
    document = openapi(routed())
    found: dict[str, list[str]] = {}
    for method, path, call in _operations(document):
        for refusals in _refusals(document, call).values():
            for name in refusals:
                found.setdefault(name, []).append(f"{method} {code(path)}")
    return found


def _operations(document: Json) -> Iterable[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, call in item.items():
            yield method.upper(), path, call


def _calls(document: Json) -> str:
    parts: list[str] = []
    tag = None
    for method, path, call in _operations(document):
        if call["tags"] != tag:
            tag = call["tags"]
            parts.append(f"## {tag[0].capitalize()}")
        parts.append(_call(document, method, path, call))
    return "\n\n".join(parts)


def _call(document: Json, method: str, path: str, call: Json) -> str:
    told = [f"### {method} {code(path)}", f"{call['summary']} {call['description']}".replace("\n\n", " ")]
    if call["parameters"]:
        told.append(_parameters(call["parameters"]))
    if "requestBody" in call:
        told.append(_body(call["requestBody"]))
    told.append(f"Answers {', '.join(_answers(call))}.")
    refusals = {
        status: [name for name in names if name not in COMMON] for status, names in _refusals(document, call).items()
    }
    if linked := [f"{status} {', '.join(map(_code_link, names))}" for status, names in refusals.items() if names]:
        told.append(f"Refusals of its own: {'; '.join(linked)}.")
    return "\n\n".join(told)


def _parameters(parameters: Iterable[Json]) -> str:
    rows = [
        (
            code(each["name"]),
            each["in"],
            _said(each["schema"], each.get("required", False)),
            each.get("description", ""),
        )
        for each in parameters
    ]
    return table(("parameter", "in", "value", "meaning"), rows)


def _body(body: Json) -> str:
    ((media, content),) = body["content"].items()
    if "schema" not in content:
        return f"Body: bytes ({code(media)})."
    optional = "" if body["required"] else ", or none"
    return f"Body: {_kind(content['schema'])}{optional}. For example:\n\n{_shown(content.get('example'))}"


def _answers(call: Json) -> Iterable[str]:
    for status, answer in call["responses"].items():
        if int(status) >= 400:
            continue
        kinds = [_kind(each["schema"]) if "schema" in each else "bytes" for each in answer.get("content", {}).values()]
        headers = f" with {codes(answer['headers'])}" if "headers" in answer else ""
        yield f"{status} {''.join(kinds) or 'nothing'}{headers}"


def _refusals(document: Json, call: Json) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for status, answer in call["responses"].items():
        if int(status) >= 400:
            named = document["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
            (content,) = named["content"].values()
            found[status] = content["schema"]["properties"]["code"]["enum"]
    return found


def _code_link(name: str) -> str:
    return f"[{code(name)}](errors/{name}.md)"


def _shapes(document: Json) -> str:
    shapes: Mapping[str, Json] = document["components"]["schemas"]
    shown = _examples(document)
    return "\n\n".join(_shape(name, shape, shown.get(name)) for name, shape in shapes.items())


def _examples(document: Json) -> dict[str, Any]:
    """For each shape that is a whole answer: the first that the story tells of."""
    found: dict[str, Any] = {}
    for _, _, call in _operations(document):
        for answer in call["responses"].values():
            for content in answer.get("content", {}).values():
                shape = content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
                if shape and "example" in content:
                    found.setdefault(shape, content["example"])
    return found


def _shape(name: str, shape: Json, example: Any) -> str:
    told = [f"### {name}"]
    if "description" in shape:
        told.append(shape["description"].strip().replace("\n", " "))
    if "enum" in shape:
        told.append(f"One of {codes(shape['enum'])}.")
    if "properties" in shape:
        required = shape.get("required", ())
        rows = [
            (code(member), _said(schema, member in required), schema.get("description", ""))
            for member, schema in shape["properties"].items()
        ]
        told.append(table(("member", "value", "meaning"), rows))
    if example is not None:
        told.append(_shown(example))
    return "\n\n".join(told)


def _shown(example: Any) -> str:
    return f"```json\n{_wrapped(example)}\n```"


def _wrapped(value: Any, indent: str = "", width: int = 110) -> str:
    """JSON with as much on a line as fits."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent + flat) <= width or not isinstance(value, dict | list):
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {_wrapped(member, inner, width)}" for key, member in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _wrapped(each, inner, width) for each in value) + f"\n{indent}]"


def _said(schema: Json, required: bool | None) -> str:
    default = f", default {code(json.dumps(schema['default']))}" if schema.get("default") is not None else ""
    needed = "" if required or default else ", optional"
    return f"{_kind(schema)}{default}{needed}"


def _kind(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return codes(schema.get("enum", [schema.get("const")]))
    return _KINDS[schema.get("type", "any")](schema)


def _object(schema: Json) -> str:
    inner = schema.get("additionalProperties")
    return f"map of text to {_kind(inner)}" if isinstance(inner, dict) and inner else "JSON object"


def _list(schema: Json) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    return f"list of {_kind(schema['items'])}{_range(least, most, ' items')}"


def _text(schema: Json) -> str:
    formats = {"uuid": "UUID", "date-time": "time", "uri": "URI"}
    pattern = f" {code(schema['pattern'])}" if "pattern" in schema else ""
    length = _range(schema.get("minLength"), schema.get("maxLength"), " characters")
    return f"{formats.get(schema.get('format', ''), 'text')}{pattern}{length}"


def _number(schema: Json) -> str:
    word = "whole number" if schema["type"] == "integer" else "number"
    if "exclusiveMinimum" in schema:
        return f"{word}, above {schema['exclusiveMinimum']}{_range(None, schema.get('maximum'))}"
    return word + _range(schema.get("minimum"), schema.get("maximum"))


def _range(least: float | None, most: float | None, of: str = "") -> str:
    if least is None and most is None:
        return ""
    if least is None or most is None:
        return f", at most {most:,}{of}" if least is None else f", at least {least:,}{of}"
    return f", {least:,} to {most:,}{of}"


_KINDS = {
    "any": lambda schema: "anything",
    "object": _object,
    "array": _list,
    "string": _text,
    "integer": _number,
    "number": _number,
    "boolean": lambda schema: "true or false",
    "null": lambda schema: "null",
}
