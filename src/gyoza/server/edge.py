"""What is true of every request before any route sees it, and of every answer after."""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gyoza.models.errors import BadRequest, Fault, HttpError, Malformed, RangeNotSatisfiable, Refusal
from gyoza.models.strictjson import pointer
from gyoza.server.problems import document, not_allowed, problem_of
from gyoza.server.wire import encode

_KEPT = (b"content-range",)
"""Headers of the web framework's own refusals that say more than its text."""


class Methods:
    """Which methods a path has, over all routes that match it. A path that is spelled out is no name in another."""

    def __init__(self, calls: Sequence[tuple[str, str]]):
        self._calls = [(method, compile_path(path)[0]) for method, path in calls]
        fixed = {path for _, path in calls if "{" not in path}
        self.fixed = {path: _told({method for method, other in calls if other == path}) for path in fixed}

    def of(self, path: str) -> list[str]:
        return self.fixed.get(path) or _told({method for method, regex in self._calls if regex.match(path)})


def _told(methods: set[str]) -> list[str]:
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


class Edge:
    """ASGI middleware: what is no text or no method is refused, HEAD is GET without a body, refusals are problems."""

    def __init__(self, app: ASGIApp, methods: Methods):
        self._app = app
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if faults := list(_undecodable(scope)):
            return await problem_of(Malformed(faults))(scope, receive, send)
        method, path = scope["method"], scope["path"]
        fixed = self._methods.fixed.get(path)
        if fixed and method not in fixed:
            return await not_allowed(method, path, fixed)(scope, receive, send)
        if method == "HEAD":
            return await _head(self._app, scope, receive, send)
        return await self._app(scope, receive, _in_our_words(scope, receive, send))


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, with a problem document for what is none."""

    def send_400_response(self, msg: str) -> None:
        body = encode(document(BadRequest(msg)))
        lines = ("HTTP/1.1 400 Bad Request", "Content-Type: application/problem+json", f"Content-Length: {len(body)}")
        self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        self.transport.close()


def _undecodable(scope: Scope) -> Iterator[Fault]:
    path, query = scope.get("raw_path") or b"", scope["query_string"]
    if b"%" not in path and b"%" not in query and query.isascii():
        return
    if not _is_text(path):
        yield Fault("/path", "is not UTF-8 once its percent signs are decoded", "not_utf8")
    for piece in query.split(b"&"):
        if not _is_text(piece):
            name = unquote_to_bytes(piece.partition(b"=")[0]).decode(errors="replace")
            yield Fault(pointer("query", name), "is not UTF-8 once its percent signs are decoded", "not_utf8")


def _is_text(encoded: bytes) -> bool:
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return False
    return True


class _Told(Exception):
    """The head of an answer is out, and nobody asked for more."""


async def _head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            raise _Told

    try:
        await app({**scope, "method": "GET"}, receive, _in_our_words(scope, receive, send_head))
    except _Told:
        return


def _in_our_words(scope: Scope, receive: Receive, send: Send) -> Send:
    """The framework refuses some things by itself, in plain text: ranges of files, for one."""
    is_foreign = False

    async def sending(message: Message) -> None:
        nonlocal is_foreign
        if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
            headers = dict(message["headers"])
            if is_foreign := not headers.get(b"content-type", b"").startswith(b"application/problem+json"):
                answer = problem_of(_refusal(message["status"]))
                answer.raw_headers += [(name, headers[name]) for name in _KEPT if name in headers]
                await answer(scope, receive, send)
        if not is_foreign:
            await send(message)

    return sending


_REFUSALS: Mapping[int, Refusal] = {
    400: BadRequest("A header of this request cannot be understood: see Range, if it has one"),
    416: RangeNotSatisfiable(),
}


def _refusal(status: int) -> Refusal:
    return _REFUSALS.get(status) or HttpError(status, HTTPStatus(status).phrase)
