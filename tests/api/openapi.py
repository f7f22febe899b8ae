"""The OpenAPI document, held against what is really answered."""

import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

Json = dict[str, Any]
METHODS = ("get", "put", "post", "patch", "delete")


class Document:
    """`faults` says where an answer differs from what the document promises."""

    def __init__(self, document: Json):
        self._document = document

    @property
    def operations(self) -> dict[tuple[str, str], Json]:
        paths = self._document["paths"]
        return {
            (method.upper(), path): item[method] for path, item in paths.items() for method in item if method in METHODS
        }

    @property
    def calls(self) -> set[tuple[str, str]]:
        return set(self.operations)

    def statuses(self, method: str, path: str) -> set[str]:
        return set(self._document["paths"][path][method.lower()]["responses"])

    def call_of(self, answer: httpx.Response) -> tuple[str, str]:
        """Which of the calls an answer belongs to: the path with the fewest parameters that matches."""
        request = answer.request
        paths = sorted(self._document["paths"], key=lambda path: path.count("{"))
        fitting = [path for path in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path)]
        return request.method, fitting[0]

    def faults(self, answer: httpx.Response) -> list[str]:
        call = self.call_of(answer)
        found = self._faults(self.operations[call]["responses"], answer)
        return [f"{call[0]} {call[1]} {answer.status_code}{fault}" for fault in found]

    def _faults(self, responses: Json, answer: httpx.Response) -> list[str]:
        if str(answer.status_code) not in responses:
            return [" is not in the document"]
        response = self._resolved(responses[str(answer.status_code)])
        headers = {name: header for name, header in response.get("headers", {}).items() if header.get("required")}
        missing = [f": no header {name}" for name in headers if name not in answer.headers]
        content = response.get("content", {})
        if not content:
            return [*missing, *([": has a body"] if answer.content else [])]
        media = "*/*" if "*/*" in content else answer.headers["content-type"]
        if media not in content:
            return [*missing, f": {media} is not in the document, but {list(content)}"]
        schema = content[media].get("schema")
        return missing if schema is None else [*missing, *self.differences(schema, answer.json())]

    def differences(self, schema: Json, value: Any) -> list[str]:
        """Members that the schema does not name included: its objects are closed."""
        whole = {**schema, "components": self._document["components"]}
        errors = Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(value)
        return ["".join(f"/{part}" for part in error.absolute_path) + f": {error.message[:200]}" for error in errors]

    def _resolved(self, node: Json) -> Json:
        if "$ref" not in node:
            return node
        _, *way = node["$ref"].split("/")
        found: Any = self._document
        for part in way:
            found = found[part]
        return found
