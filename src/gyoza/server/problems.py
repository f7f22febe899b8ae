"""Every refusal as a problem document (RFC 9457), by one table."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gyoza.models.errors import (
    Conflict,
    Fault,
    Forbidden,
    GyozaError,
    InputValidationError,
    Malformed,
    NotAllowedNow,
    NotFound,
    Refusal,
    TooLarge,
    Unauthorized,
    WrongOffset,
)
from gyoza.server.wire import encode, fault_of

STATUSES: Mapping[type[Refusal], int] = {
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Malformed: 422,
    NotAllowedNow: 400,
    InputValidationError: 400,
    Refusal: 400,
}

_log = logging.getLogger(__name__)


def problem(status: int, detail: str, code: str, **more: Any) -> Response:
    document = {
        "type": f"urn:gyoza:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    return Response(encode(document), status, media_type="application/problem+json")


def problem_of(error: GyozaError) -> Response:
    more: dict[str, Any] = {}
    if isinstance(error, Malformed):
        more["errors"] = [asdict(fault) for fault in error.errors]
    if isinstance(error, InputValidationError):
        more["errors"] = error.errors
    if isinstance(error, WrongOffset):
        more["offset"] = error.offset
    return problem(status_of(error), error.detail, error.code, **more)


def status_of(error: GyozaError) -> int:
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)


def install(app: FastAPI) -> None:
    handlers: Mapping[type[Exception], Any] = {
        GyozaError: _refused,
        RequestValidationError: _misshapen,
        HTTPException: _http,
        psycopg.OperationalError: no_database,
        PoolTimeout: no_database,
        psycopg.DataError: _unkeepable,
        ClientDisconnect: _gone,
        Exception: _crashed,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _refused(request: Request, error: GyozaError) -> Response:
    return problem_of(error)


async def _misshapen(request: Request, error: RequestValidationError) -> Response:
    return problem_of(Malformed([fault_of(each) for each in error.errors()]))


async def _http(request: Request, error: HTTPException) -> Response:
    codes = {404: "no_such_path", 405: "method_not_allowed"}
    texts = {
        404: f"There is nothing at {request.url.path}: see /docs for what there is",
        405: f"{request.method} is not possible at {request.url.path}: see /docs for what is",
    }
    status = error.status_code
    answer = problem(status, texts.get(status, str(error.detail)), codes.get(status, "http_error"))
    answer.headers.update(error.headers or {})
    return answer


async def no_database(request: Request, error: Exception) -> Response:
    _log.warning("no database for %s %s: %s", request.method, request.url.path, error)
    answer = problem(503, "The database cannot be reached just now: try again shortly", "database_unavailable")
    answer.headers["Retry-After"] = "1"
    return answer


async def _gone(request: Request, error: Exception) -> Response:
    """The client broke off while it sent: nobody is there to read this."""
    return Response(status_code=400)


async def _unkeepable(request: Request, error: Exception) -> Response:
    """What bodies may hold is checked on reading; this is for paths and queries."""
    _log.warning("%s %s holds what cannot be kept: %s", request.method, request.url.path, error)
    return problem_of(
        Malformed([Fault("", "the request holds a value that cannot be kept, such as NUL", "unkeepable")])
    )


async def _crashed(request: Request, error: Exception) -> Response:
    _log.error("%s %s crashed", request.method, request.url.path, exc_info=error)
    return problem(500, "The server failed on this request; its log says more", "internal_error")
