"""What every handler needs of its server, and how thin routes are made known to the OpenAPI document."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, cast

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from gyoza.control.logs import Shelf
from gyoza.models.keys import Caller, Scope
from gyoza.policy.liveness import Pace
from gyoza.server.answers import Problem
from gyoza.server.filestore import FileStore
from gyoza.store.bell import Bell
from gyoza.store.database import Database

Handler = Callable[[Request], Awaitable[Response]]
READ, SUBMIT, ADMIN, WORKER = Scope.READ, Scope.SUBMIT, Scope.ADMIN, Scope.WORKER


@dataclass(frozen=True)
class Context:
    """`log_limit`: how many bytes an attempt's log may have."""

    database: Database
    bell: Bell
    files: FileStore
    shelf: Shelf
    log_limit: int
    pace: Pace
    cluster_id: str

    def now(self) -> datetime:
        return self.database.clock.now()


def context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def caller(request: Request) -> Caller:
    """Whose key it is, as the authentication found."""
    return cast(Caller, request.state.caller)


@dataclass(frozen=True)
class Thin:
    """A route that skips FastAPI's machinery; this is what the OpenAPI document says of it."""

    method: str
    path: str
    summary: str
    scopes: tuple[Scope, ...]
    body: type[BaseModel] | None
    answer: type[BaseModel]
    statuses: tuple[int, ...]


class Routes(APIRouter):
    """The calls of one noun, each with the scopes of which one is needed; a call without any is open to all.

    `call` goes through FastAPI, which reads parameters and draws the document; `hot` is Starlette's, thin, and draws
    the document from what it is told.
    """

    def __init__(self, tag: str):
        super().__init__(tags=[tag])
        self.tag = tag
        self.thin: list[Thin] = []
        self.scopes: dict[tuple[str, str], tuple[Scope, ...]] = {}

    def call(
        self,
        method: str,
        path: str,
        *scopes: Scope,
        answer: Any = None,
        refuses: tuple[int, ...] = (),
        status: int = 200,
        **more: Any,
    ) -> Callable[[Callable[..., Awaitable[Response]]], Callable[..., Awaitable[Response]]]:
        self.scopes[method, path] = scopes
        described = {"security": security(scopes), **more.pop("openapi_extra", {})}
        responses = {**problems(*refuses, *((401, 403, 422) if scopes else ())), **more.pop("responses", {})}
        guards = [Depends(_guard(scopes))] if scopes else []

        def register(handler: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
            self.add_api_route(
                path,
                handler,
                methods=[method],
                response_model=answer,
                status_code=status,
                responses=responses,
                dependencies=guards,
                openapi_extra=described,
                **more,
            )
            return handler

        return register

    def hot(
        self,
        method: str,
        path: str,
        *scopes: Scope,
        body: type[BaseModel] | None,
        answer: type[BaseModel],
        statuses: tuple[int, ...],
    ) -> Callable[[Handler], Handler]:
        self.scopes[method, path] = scopes

        def register(handler: Handler) -> Handler:
            summary = (handler.__doc__ or "").strip().splitlines()[0]
            self.thin.append(Thin(method, path, summary, scopes, body, answer, statuses))

            @wraps(handler)
            async def guarded(request: Request) -> Response:
                _allow(request, scopes)
                return await handler(request)

            self.add_route(path, guarded, methods=[method], include_in_schema=False)
            return handler

        return register


def security(scopes: tuple[Scope, ...]) -> list[dict[str, list[str]]]:
    """OpenAPI's words for: one of these scopes, under either of the headers."""
    return [{header: [scope.value]} for scope in scopes for header in ("key", "bearer")]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse with these."""
    return {status: {"model": Problem} for status in sorted(set(statuses))}


def _guard(scopes: tuple[Scope, ...]) -> Callable[[Request], Awaitable[None]]:
    async def guard(request: Request) -> None:
        _allow(request, scopes)

    return guard


def _allow(request: Request, scopes: tuple[Scope, ...]) -> None:
    caller(request).allow(scopes, request.path_params.get("worker_id"))
