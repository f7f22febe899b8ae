"""The OpenAPI document, drawn from the calls as they were registered, with an example for each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, get_args, get_origin

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from gyoza.models.errors import Refusal
from gyoza.server.answers import Problem
from gyoza.server.context import Call, Stream
from gyoza.server.problems import HEADERS, status_of_kind
from gyoza.server.schemas import PATHS

Object = dict[str, Any]
SECURITY = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_REF = "#/components/schemas/{model}"
_REPEAT = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "of your own making; the same request under the same key gets the answer that it got first",
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
}
_REPEATED = {
    "Idempotency-Replayed": {
        "description": "`true` where this answer was given before",
        "schema": {"type": "string", "const": "true"},
    }
}
_HEADERS = {
    "WWW-Authenticate": "how to send a key",
    "Retry-After": "seconds to wait before trying again",
}


class _Plain(GenerateJsonSchema):
    """Without titles that repeat the name of a member, and without defaults of what is always answered."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> Object:
        return super().default_schema(schema) if self.mode == "validation" else self.generate_inner(schema["schema"])


@cache
def examples() -> Mapping[str, Any]:
    """By operation: a request that was made, and its answer. `make docs` records them anew."""
    return json.loads(files("gyoza.server").joinpath("examples.json").read_text())


def openapi(app: FastAPI, title: str, version: str, tagged: Iterable[tuple[str, Call]]) -> Object:
    drawn = get_openapi(title=title, version=version, routes=app.routes)
    paths: Object = {}
    calls = list(tagged)
    for tag, call in calls:
        method = call.method.lower()
        found = drawn["paths"].get(call.path, {}).get(method, {}).get("parameters", [])
        paths.setdefault(call.path, {})[method] = {"tags": [tag], **_operation(call, found)}
    refusals = {_named(kinds): _refusal(kinds) for _, call in calls for kinds in _by_status(call).values()}
    return {
        "openapi": drawn["openapi"],
        "info": drawn["info"],
        "paths": paths,
        "components": {
            "schemas": _schemas([call for _, call in calls]),
            "responses": dict(sorted(refusals.items())),
            "securitySchemes": SECURITY,
        },
    }


def _operation(call: Call, found: Iterable[Object]) -> Object:
    summary, description = call.texts
    example = examples().get(call.name, {})
    needs = f"Needs a key with the scope {' or '.join(call.scopes)}." if call.scopes else "Needs no key."
    told: Object = {
        "operationId": call.name,
        "summary": summary,
        "description": f"{description}\n\n{needs}".strip(),
        "security": [{header: [scope.value]} for scope in call.scopes for header in SECURITY],
        "parameters": _parameters(call, found, example),
        "responses": {**_answers(call, example), **_refusals(call)},
    }
    if call.body is not None:
        told["requestBody"] = {"required": call.body_required, "content": _content(call.body, example.get("body"))}
    return told


def _parameters(call: Call, found: Iterable[Object], example: Mapping[str, Any]) -> list[Object]:
    of_path = [
        {"name": name, "in": "path", "required": True, "schema": TypeAdapter[Any](PATHS[name]).json_schema()}
        for name in call.path_names
    ]
    others = [each for each in (*found, *call.parameters, *([_REPEAT] if call.repeats else ())) if each["in"] != "path"]
    told = [_parameter(each, call.no_empty) for each in (*of_path, *others)]
    for each in told:
        given = example.get(each["in"], {})
        each.update({"example": given[each["name"]]} if each["name"] in given else {})
    return told


def _parameter(drawn: Mapping[str, Any], no_empty: bool) -> Object:
    """A parameter that is left out is no null; what describes its schema describes the parameter."""
    schema = {name: value for name, value in drawn["schema"].items() if name != "title"}
    kinds = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    (own,) = kinds or [{}]
    schema = {**own, **schema}
    description = {"description": schema.pop("description")} if "description" in schema else {}
    told = {**drawn, **description, "schema": schema}
    return {**told, "schema": _filled(schema)} if no_empty else told


def _filled(schema: Object) -> Object:
    """Neither an empty text, nor one in a list."""
    if "enum" in schema:
        return {**schema, "enum": [value for value in schema["enum"] if value]}
    if "items" in schema:
        return {**schema, "items": _filled(schema["items"])}
    return {**schema, "minLength": 1} if schema.get("type") == "string" else schema


def _answers(call: Call, example: Mapping[str, Any]) -> Object:
    told: Object = {}
    for status in call.statuses:
        answer: Object = {"description": "done"}
        shown = example.get("answer") if status == example.get("status") else None
        if call.answer is not None and status != HTTPStatus.NO_CONTENT:
            answer["content"] = _content(call.answer, shown)
        headers = {name: _header(text, kind) for name, (kind, text) in call.headers.items()} | (
            _REPEATED if call.repeats else {}
        )
        if headers:
            answer["headers"] = headers
        told[str(status)] = answer
    return told


def _refusals(call: Call) -> Object:
    kinds = _by_status(call)
    return {str(status): {"$ref": f"#/components/responses/{_named(kinds[status])}"} for status in sorted(kinds)}


def _by_status(call: Call) -> dict[int, list[type[Refusal]]]:
    kinds: dict[int, list[type[Refusal]]] = {}
    for kind in call.refusals:
        kinds.setdefault(status_of_kind(kind), []).append(kind)
    return kinds


def _named(kinds: Iterable[type[Refusal]]) -> str:
    return "_or_".join(_codes(kinds))


def _codes(kinds: Iterable[type[Refusal]]) -> list[str]:
    return sorted({kind.code for kind in kinds})


def _refusal(kinds: Sequence[type[Refusal]]) -> Object:
    """The problem documents of one status, with the codes that may come."""
    codes = _codes(kinds)
    schema = {"allOf": [{"$ref": _REF.format(model="Problem")}], "properties": {"code": {"enum": codes}}}
    headers = {name for kind in kinds for base, sent in HEADERS.items() if issubclass(kind, base) for name in sent}
    told: Object = {
        "description": "refused: " + ", ".join(f"`{code}`" for code in codes),
        "content": {"application/problem+json": {"schema": schema}},
    }
    return {**told, "headers": {name: _header(_HEADERS[name]) for name in sorted(headers)}} if headers else told


def _header(description: str, kind: str = "string") -> Object:
    return {"description": description, "required": True, "schema": {"type": kind}}


def _content(shape: Any, example: Any) -> Object:
    shown = {} if example is None else {"example": example}
    if isinstance(shape, Stream):
        return {shape.media: shown}
    return {"application/json": {"schema": _reference(shape), **shown}}


def _reference(shape: Any) -> Object:
    if get_origin(shape) is list:
        return {"type": "array", "items": _reference(get_args(shape)[0])}
    return {"$ref": _REF.format(model=shape.__name__)}


def _schemas(calls: Iterable[Call]) -> Object:
    """Bodies as they are read, answers as they are written; what is both looks the same in both."""
    bodies = {call.body for call in calls if isinstance(call.body, type)}
    answers = {_inner(call.answer) for call in calls} | {Problem}
    read = _defined(bodies, "validation")
    written = _defined({shape for shape in answers if isinstance(shape, type)}, "serialization")
    if differ := [name for name in set(read) & set(written) if read[name] != written[name]]:
        raise AssertionError(f"shapes that are read and written differently need two names: {differ}")
    return dict(sorted((read | written).items()))


def _inner(shape: Any) -> Any:
    return get_args(shape)[0] if get_origin(shape) is list else shape


def _defined(shapes: Iterable[type[BaseModel]], mode: JsonSchemaMode) -> Object:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(shape, mode) for shape in shapes]
    return models_json_schema(models, ref_template=_REF, schema_generator=_Plain)[1].get("$defs", {})
