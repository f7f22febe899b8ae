"""The OpenAPI document, held against what is really answered."""

import re
from collections.abc import Iterator
from typing import Any

import httpx

Json = dict[str, Any]
METHODS = ("get", "put", "post", "patch", "delete")
IS: dict[str, Any] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


class Document:
    """`faults` says where an answer differs from what the document promises, members that it does not name included."""

    def __init__(self, document: Json):
        self._document = document

    @property
    def calls(self) -> set[tuple[str, str]]:
        paths = self._document["paths"]
        return {(method.upper(), path) for path, item in paths.items() for method in item if method in METHODS}

    def call_of(self, answer: httpx.Response) -> tuple[str, str]:
        """Which of the calls an answer belongs to: the path with the fewest parameters that matches."""
        request = answer.request
        paths = sorted(self._document["paths"], key=lambda path: path.count("{"))
        fitting = [path for path in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path)]
        return request.method, fitting[0]

    def faults(self, answer: httpx.Response) -> list[str]:
        method, path = self.call_of(answer)
        responses = self._document["paths"][path][method.lower()]["responses"]
        if str(answer.status_code) not in responses:
            return [f"{method} {path}: {answer.status_code} is not in the document"]
        content = responses[str(answer.status_code)].get("content", {})
        if not answer.content:
            return []
        media = "*/*" if "*/*" in content else answer.headers["content-type"]
        if media not in content:
            return [f"{method} {path} {answer.status_code}: {media} is not in the document, but {list(content)}"]
        schema = content[media].get("schema", {})
        if schema.get("format") == "binary":
            return []
        return [f"{method} {path} {answer.status_code}{fault}" for fault in self._differs(answer.json(), schema, "")]

    def _differs(self, value: Any, schema: Json, at: str) -> Iterator[str]:
        if "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        if "anyOf" in schema:
            tries = [list(self._differs(value, each, at)) for each in schema["anyOf"]]
            yield from () if [] in tries else min(tries, key=len)
        if "enum" in schema and value not in schema["enum"]:
            yield f"{at}: {value!r} is none of {schema['enum']}"
        if "const" in schema and value != schema["const"]:
            yield f"{at}: {value!r} is not {schema['const']!r}"
        if "type" in schema and not IS[schema["type"]](value):
            yield f"{at}: {value!r} is no {schema['type']}"
        elif schema.get("type") == "array":
            for index, each in enumerate(value):
                yield from self._differs(each, schema.get("items", {}), f"{at}/{index}")
        elif schema.get("type") == "object":
            yield from self._object_differs(value, schema, at)

    def _object_differs(self, value: Json, schema: Json, at: str) -> Iterator[str]:
        named, rest = schema.get("properties", {}), schema.get("additionalProperties")
        yield from (f"{at}/{name}: missing" for name in schema.get("required", ()) if name not in value)
        for name, member in value.items():
            if name in named:
                yield from self._differs(member, named[name], f"{at}/{name}")
            elif isinstance(rest, dict):
                yield from self._differs(member, rest, f"{at}/{name}")
            elif named or rest is False:
                yield f"{at}/{name}: not in the document"
