"""Who asks is found out before anything of a request is read, and looked at again while an answer stays open."""

import psycopg
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from gyoza.models.errors import Unauthorized
from gyoza.models.keys import BOOTSTRAP, Caller
from gyoza.server.keyring import Keyring
from gyoza.server.problems import no_database, problem_of

OPEN_PATHS = frozenset({"/health", "/health/ready", "/openapi.json", "/docs"})


class Authentication:
    """ASGI middleware: 401 where the key is missing or not good; else the request's state says whose it is."""

    def __init__(self, app: ASGIApp, keyring: Keyring):
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        key = _given(dict(scope["headers"]))
        try:
            caller = await self._caller(key)
        except Unauthorized as refusal:
            return await problem_of(refusal)(scope, receive, send)
        except psycopg.OperationalError as error:
            answer = await no_database(Request(scope), error)
            return await answer(scope, receive, send)
        scope.setdefault("state", {})["caller"] = caller
        if caller is BOOTSTRAP:
            return await self._app(scope, receive, send)
        try:
            await self._app(scope, receive, self._while_good(key, send))
        except _NoLongerGood:
            await send({"type": "http.response.body"})

    async def _caller(self, key: bytes) -> Caller:
        if not key:
            raise Unauthorized("The API key is missing: send it as header X-API-Key, or as Authorization: Bearer")
        caller = await self._keyring.caller(key)
        if caller is None:
            raise Unauthorized(
                "The API key is not known here, or has expired or was revoked: "
                "ask an administrator for another (gyoza keys create)"
            )
        return caller

    def _while_good(self, key: bytes, send: Send) -> Send:
        """What has no length is a stream, and may stay open for days: it ends once the key is good no longer."""
        is_stream = False

        async def sending(message: Message) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                is_stream = b"content-length" not in dict(message.get("headers", ()))
            elif is_stream and message.get("more_body") and not await self._is_good(key):
                raise _NoLongerGood
            await send(message)

        return sending

    async def _is_good(self, key: bytes) -> bool:
        """Nobody can say so while the database cannot be reached: then there is nothing new to tell either."""
        try:
            return await self._keyring.caller(key) is not None
        except psycopg.OperationalError:
            return True


class _NoLongerGood(Exception):
    """Ends a stream whose key has expired or was revoked."""


def _given(headers: dict[bytes, bytes]) -> bytes:
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""
