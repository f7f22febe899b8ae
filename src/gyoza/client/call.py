"""One request to a server as a value, and how its answer is read: nothing here touches the network."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

import httpx

from gyoza.client.errors import not_gyoza, refusal

T = TypeVar("T")
U = TypeVar("U")
Object = dict[str, Any]


@dataclass(frozen=True)
class Call(Generic[T]):
    """`wait_s`: how long the server may hold the answer back on purpose."""

    method: str
    path: str
    decode: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    content: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    wait_s: float = 0.0

    def read(self, response: httpx.Response) -> T:
        """The decoded answer, or the refusal as an error."""
        if not response.is_success:
            raise refusal(response)
        return self.decode(response)

    def once(self, key: str | None) -> "Call[T]":
        """The same call under an idempotency key: however often it is sent, it is done once."""
        return self if key is None else replace(self, headers={**self.headers, "Idempotency-Key": key})

    def read_by(self, decode: Callable[[httpx.Response], U]) -> "Call[U]":
        """The same call with another reading of its answer."""
        return cast("Call[U]", replace(cast("Any", self), decode=decode))


def get(path: str, **params: Any) -> Call[Object]:
    return Call("GET", path, an_object, params=given(**params))


def get_list(path: str) -> Call[list[Object]]:
    return Call("GET", path, a_list)


def send(method: str, path: str, body: Mapping[str, Any], *, wait_s: float = 0.0) -> Call[Object]:
    """What JSON does not allow (NaN, lone surrogates) goes as it is: the server names the place, for every client."""
    content = json.dumps(body, separators=(",", ":"), default=_plain).encode()
    headers = {"Content-Type": "application/json"}
    return Call(method, path, an_object, content=content, headers=headers, wait_s=wait_s)


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def part(name: str) -> str:
    """One segment of a path, whatever characters are in the name."""
    return quote(name, safe="")


def an_object(response: httpx.Response) -> Object:
    return _json(response, dict)


def a_list(response: httpx.Response) -> list[Object]:
    return _json(response, list)


def text(response: httpx.Response) -> str:
    """What the server wrote, untouched."""
    return response.text


def content(response: httpx.Response) -> bytes:
    return response.content


def nothing(response: httpx.Response) -> None:
    return None


def _json(response: httpx.Response, kind: type) -> Any:
    try:
        body = response.json()
    except ValueError as error:
        raise not_gyoza(response) from error
    if not isinstance(body, kind):
        raise not_gyoza(response)
    return body


def _plain(value: Any) -> Any:
    """Models are welcome wherever their dictionaries are, and times wherever their texts are."""
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    raise TypeError(f"{type(value).__name__} {value!r} is not JSON")
