"""Every refusal as a problem document (RFC 9457), by one table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from psycopg.errors import IdleInTransactionSessionTimeout
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gyoza.models.errors import (
    BadRequest,
    Conflict,
    DatabaseUnavailable,
    Fault,
    Forbidden,
    HttpError,
    InputValidationError,
    InternalError,
    Malformed,
    MethodNotAllowed,
    NoSuchPath,
    NotFound,
    RangeNotSatisfiable,
    Refusal,
    TooLarge,
    Unauthorized,
    Unavailable,
    WrongOffset,
)
from gyoza.server.faults import fault_of
from gyoza.server.wire import encode

STATUSES: Mapping[type[Refusal], int] = {
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    Conflict: 409,
    TooLarge: 413,
    RangeNotSatisfiable: 416,
    Malformed: 422,
    InternalError: 500,
    Unavailable: 503,
    Refusal: 400,
}
HEADERS: Mapping[type[Refusal], Mapping[str, str]] = {
    Unauthorized: {"WWW-Authenticate": "Bearer"},
    Unavailable: {"Retry-After": "1"},
}
"""What goes with every refusal of a kind."""
TYPE = "urn:gyoza:problem:"

_log = logging.getLogger(__name__)


def document(error: Refusal) -> dict[str, Any]:
    told = {
        "type": f"{TYPE}{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": status_of(error),
        "detail": error.detail,
        "code": error.code,
    }
    faults = [asdict(fault) for fault in _faults(error)]
    where = {"offset": error.offset} if isinstance(error, WrongOffset) else {}
    return {**told, **({"errors": faults} if faults else {}), **where}


def problem_of(error: Refusal) -> Response:
    headers = next((headers for kind, headers in HEADERS.items() if isinstance(error, kind)), None)
    content = encode(document(error))
    return Response(content, status_of(error), headers, media_type="application/problem+json")


def not_allowed(method: str, path: str, allowed: Sequence[str]) -> Response:
    answer = problem_of(MethodNotAllowed(method, path, allowed))
    answer.headers["Allow"] = ", ".join(allowed)
    return answer


def status_of(error: Refusal) -> int:
    return error.status if isinstance(error, HttpError) else status_of_kind(type(error))


def status_of_kind(kind: type[Refusal]) -> int:
    return next(status for base, status in STATUSES.items() if issubclass(kind, base))


def install(app: FastAPI) -> None:
    handlers: Mapping[type[Exception], Any] = {
        Refusal: _refused,
        RequestValidationError: _misshapen,
        HTTPException: _http,
        psycopg.OperationalError: no_database,
        PoolTimeout: no_database,
        IdleInTransactionSessionTimeout: no_database,
        psycopg.DataError: _unkeepable,
        ClientDisconnect: _gone,
        Exception: _crashed,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _faults(error: Refusal) -> list[Fault]:
    if isinstance(error, InputValidationError):
        return error.faults
    return error.errors if isinstance(error, Malformed) else []


async def _refused(request: Request, error: Refusal) -> Response:
    return problem_of(error)


async def _misshapen(request: Request, error: RequestValidationError) -> Response:
    return problem_of(Malformed([fault_of(each) for each in error.errors()]))


async def _http(request: Request, error: HTTPException) -> Response:
    """What the router refuses by itself; it knows the methods of one route alone, and a path may have several."""
    path = request.url.path
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = request.app.state.methods.of(path) or sorted((error.headers or {}).get("Allow", "GET").split(", "))
        return not_allowed(request.method, path, allowed)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem_of(NoSuchPath(path))
    answer = problem_of(HttpError(error.status_code, str(error.detail)))
    answer.headers.update(error.headers or {})
    return answer


async def no_database(request: Request, error: Exception) -> Response:
    _log.warning("no database for %s %s: %s", request.method, request.url.path, error)
    return problem_of(DatabaseUnavailable())


async def _gone(request: Request, error: Exception) -> Response:
    """The client broke off while it sent: at most it still listens."""
    return problem_of(BadRequest("The connection broke off before the body was whole: send it again"))


async def _unkeepable(request: Request, error: Exception) -> Response:
    """What requests may hold is checked on reading; this is for what was forgotten there."""
    _log.warning("%s %s holds what cannot be kept: %s", request.method, request.url.path, error)
    return problem_of(Malformed([Fault("", "the request holds a value that cannot be kept", "unkeepable")]))


async def _crashed(request: Request, error: Exception) -> Response:
    _log.error("%s %s crashed", request.method, request.url.path, exc_info=error)
    return problem_of(InternalError())
