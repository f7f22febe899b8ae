"""What every handler needs of its server, and how calls are registered and made known to the OpenAPI document."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from inspect import cleandoc
from typing import Any, cast

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from gyoza.control.logs import Shelf
from gyoza.models.errors import (
    DatabaseUnavailable,
    Fault,
    Forbidden,
    IdempotencyKeyReused,
    InternalError,
    Malformed,
    Refusal,
    TooLarge,
    Unauthorized,
)
from gyoza.models.keys import Caller, Scope
from gyoza.models.strictjson import pointer, text_faults
from gyoza.policy.liveness import Pace
from gyoza.server.faults import fault_of
from gyoza.server.filestore import FileStore
from gyoza.server.schemas import PATHS
from gyoza.server.tail import Tail
from gyoza.store.bell import Bell
from gyoza.store.database import Database

Handler = Callable[..., Awaitable[Response]]
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
    tail: Tail

    def now(self) -> datetime:
        return self.database.clock.now()


def context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def caller(request: Request) -> Caller:
    """Whose key it is, as the authentication found."""
    return cast(Caller, request.state.caller)


@dataclass(frozen=True)
class Stream:
    """A body or an answer that is no JSON, but of this media type."""

    media: str


@dataclass(frozen=True)
class Call:
    """One call, as the OpenAPI document tells of it.

    Its name and texts are those of the handler: the function's name is the operation's id, the first line of its
    docstring the summary, and the rest of that the description.

    - `scopes`: one of these is needed; without any the call is open to all
    - `body`, `answer`: a shape, a list of a shape, a `Stream`, or None where there is none
    - `statuses`: of answers that are no refusal
    - `refuses`: what this call refuses with; `refusals` adds what every call of its kind may refuse with
    - `headers`: of the answer, each with its type and a sentence
    - `parameters`: in OpenAPI's words, those that are read by hand
    - `no_empty`: an empty query parameter is refused here, and not passed over
    - `repeats`: it may be sent again under an Idempotency-Key, which `repeats.asked` reads
    """

    method: str
    path: str
    handler: Handler
    scopes: tuple[Scope, ...] = ()
    body: type[BaseModel] | Stream | None = None
    answer: Any = None
    statuses: tuple[int, ...] = (200,)
    refuses: tuple[type[Refusal], ...] = ()
    headers: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    parameters: tuple[Mapping[str, Any], ...] = ()
    body_required: bool = True
    no_empty: bool = False
    repeats: bool = False

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def texts(self) -> tuple[str, str]:
        """Summary and description."""
        summary, _, description = cleandoc(self.handler.__doc__ or "").partition("\n\n")
        return summary, description

    @property
    def path_names(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    @property
    def refusals(self) -> tuple[type[Refusal], ...]:
        guarded = (Unauthorized, Forbidden, Malformed, DatabaseUnavailable) if self.scopes else ()
        read = (TooLarge,) if isinstance(self.body, type) else ()
        repeated = (IdempotencyKeyReused,) if self.repeats else ()
        return (*self.refuses, *guarded, *read, *repeated, InternalError)


class Routes(APIRouter):
    """The calls of one noun. What is said of a call is in `Call`:

        @router.call("GET", "/runs/{run_id}", READ, answer=RunOut, refuses=(RunNotFound,))
        async def get_run(request: Request, run_id: str) -> Response: ...

        @router.hot("POST", "/runs", SUBMIT, body=CreateRun, answer=RunOut, status=201)
        async def create_run(request: Request) -> Response: ...

    `call` goes through FastAPI, which reads parameters from the handler's signature and draws them; `hot` is
    Starlette's, thin. Parameters of paths are held to `schemas.PATHS` in both.
    """

    def __init__(self, tag: str):
        super().__init__(tags=[tag])
        self.tag = tag
        self.calls: list[Call] = []

    @property
    def scopes(self) -> dict[tuple[str, str], tuple[Scope, ...]]:
        return {(call.method, call.path): call.scopes for call in self.calls}

    def call(
        self, method: str, path: str, *scopes: Scope, status: int | tuple[int, ...] = 200, **said: Any
    ) -> Callable[[Handler], Handler]:
        guards = [Depends(_guard(scopes))] if scopes else []

        def register(handler: Handler) -> Handler:
            self.calls.append(Call(method, path, handler, scopes, statuses=_statuses(status), **said))
            self.add_api_route(path, handler, methods=[method], response_model=None, dependencies=guards)
            return handler

        return register

    def hot(
        self, method: str, path: str, *scopes: Scope, status: int | tuple[int, ...] = 200, **said: Any
    ) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self.calls.append(Call(method, path, handler, scopes, statuses=_statuses(status), **said))

            @wraps(handler)
            async def guarded(request: Request) -> Response:
                _allow(request, scopes)
                return await handler(request)

            self.add_route(path, guarded, methods=[method], include_in_schema=False)
            return handler

        return register


def _statuses(status: int | tuple[int, ...]) -> tuple[int, ...]:
    return status if isinstance(status, tuple) else (status,)


def _guard(scopes: tuple[Scope, ...]) -> Callable[[Request], Awaitable[None]]:
    async def guard(request: Request) -> None:
        _allow(request, scopes)

    return guard


def _allow(request: Request, scopes: tuple[Scope, ...]) -> None:
    caller(request).allow(scopes, request.path_params.get("worker_id"))
    if faults := list(_faults(request)):
        raise Malformed(faults)


_PATHS = {name: TypeAdapter[Any](shape) for name, shape in PATHS.items()}


_CURSORS = frozenset({"starting_after", "ending_before"})
"""Ids of runs: one that is none is not found, whatever is in it."""


def _faults(request: Request) -> Iterator[Fault]:
    """Bodies are checked on reading; of the rest, a text could still hold what PostgreSQL cannot."""
    for name, value in request.path_params.items():
        yield from _path_faults(name, value)
    for name, value in request.query_params.multi_items():
        if name not in _CURSORS:
            yield from text_faults(name + value, pointer("query", name))


def _path_faults(name: str, value: Any) -> list[Fault]:
    try:
        _PATHS[name].validate_python(value)
    except ValidationError as error:
        return [fault_of({**found, "loc": ("path", name)}) for found in error.errors()]
    return []
