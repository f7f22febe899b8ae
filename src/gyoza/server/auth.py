"""The one shared key, checked before anything of a request is read."""

import secrets

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from gyoza.models.errors import Unauthorized
from gyoza.models.keys import Caller, Scope
from gyoza.server.problems import problem_of

BOOTSTRAP = Caller("bootstrap", frozenset({Scope.ADMIN}))
"""Who has the key that the server was started with."""
OPEN_PATHS = frozenset({"/health", "/health/ready", "/openapi.json", "/docs"})


class Authentication:
    """ASGI middleware: 401 where the key is missing or unknown, compared in constant time."""

    def __init__(self, app: ASGIApp, api_key: str):
        self._app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        given = _given(dict(scope["headers"]))
        if given is not None and secrets.compare_digest(given, self._key):
            scope.setdefault("state", {})["caller"] = BOOTSTRAP
            return await self._app(scope, receive, send)
        what = "is missing" if given is None else "is not known here"
        refusal = Unauthorized(f"The API key {what}: send it as header X-API-Key, or as Authorization: Bearer")
        answer = problem_of(refusal)
        answer.headers["WWW-Authenticate"] = "Bearer"
        return await answer(scope, receive, send)


def _given(headers: dict[bytes, bytes]) -> bytes | None:
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None
