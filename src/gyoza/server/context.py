"""What every handler needs of its server, and how thin routes are made known to the OpenAPI document."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from gyoza.policy.liveness import Pace
from gyoza.server.answers import Problem
from gyoza.server.filestore import FileStore
from gyoza.store.bell import Bell
from gyoza.store.database import Database

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Context:
    database: Database
    bell: Bell
    files: FileStore
    pace: Pace
    cluster_id: str

    def now(self) -> datetime:
        return self.database.clock.now()


def context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


@dataclass(frozen=True)
class Thin:
    """A route that skips FastAPI's machinery; this is what the OpenAPI document says of it."""

    method: str
    path: str
    summary: str
    body: type[BaseModel] | None
    answer: type[BaseModel]
    statuses: tuple[int, ...]


class Routes(APIRouter):
    """A router that also has thin routes: Starlette's, with their models registered."""

    def __init__(self, tag: str):
        super().__init__(tags=[tag])
        self.tag = tag
        self.thin: list[Thin] = []

    def hot(
        self,
        method: str,
        path: str,
        *,
        body: type[BaseModel] | None,
        answer: type[BaseModel],
        statuses: tuple[int, ...],
    ) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            summary = (handler.__doc__ or "").strip().splitlines()[0]
            self.thin.append(Thin(method, path, summary, body, answer, statuses))
            self.add_route(path, handler, methods=[method], include_in_schema=False)
            return handler

        return register


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse with these."""
    return {status: {"model": Problem} for status in sorted({401, 422, *statuses})}
