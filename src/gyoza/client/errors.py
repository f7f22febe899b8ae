"""What can go wrong between a program and its server, as one tree.

GyozaError
  ResponseError                  the server said no; also an httpx.HTTPStatusError
    BadRequest                   400
    Unauthorized                 401
    Forbidden                    403
    NotFound                     404
    Conflict                     409
    TooLarge                     413
    Unprocessable                422
    ServerFailed                 5xx
    NotGyoza                     an answer that no Gyoza server gives: the URL names something else
  GyozaUnreachable               no answer at all; also an httpx.TransportError
    NoServer                     also an httpx.ConnectError
    NoAnswer                     also an httpx.TimeoutException
  RunFailed                      a run that was waited for ended FAILED
    RunCancelled                 ... or CANCELLED
  InvalidSetting                 a server URL or a key that cannot be used
  DownloadBroken                 what arrived is not what was stored
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

import httpx

from gyoza.models.errors import GyozaError


class ResponseError(httpx.HTTPStatusError, GyozaError):
    """A refusal, with its problem document (RFC 9457): `code` is stable, `detail` one sentence for people.

    `errors` has an item `{pointer, detail, code}` for each faulty place in what was sent.
    """

    def __init__(self, text: str, response: httpx.Response, problem: Mapping[str, Any]):
        super().__init__(text, request=response.request, response=response)
        self.problem = dict(problem)
        self.status_code = response.status_code
        self.code = str(problem.get("code", f"http_{response.status_code}"))
        self.detail = str(problem.get("detail", text))
        self.errors: list[Any] = list(problem.get("errors") or [])


class BadRequest(ResponseError):
    pass


class Unauthorized(ResponseError):
    pass


class Forbidden(ResponseError):
    pass


class NotFound(ResponseError):
    pass


class Conflict(ResponseError):
    pass


class TooLarge(ResponseError):
    pass


class Unprocessable(ResponseError):
    pass


class ServerFailed(ResponseError):
    pass


class NotGyoza(ResponseError):
    pass


class GyozaUnreachable(httpx.TransportError, GyozaError):
    code = "unreachable"


class NoServer(GyozaUnreachable, httpx.ConnectError):
    pass


class NoAnswer(GyozaUnreachable, httpx.TimeoutException):
    pass


class RunFailed(GyozaError):
    """`run` is the run as it ended."""

    code = "run_failed"

    def __init__(self, run: Mapping[str, Any]):
        super().__init__(_ending(run))
        self.run = dict(run)


class RunCancelled(RunFailed):
    code = "run_cancelled"


class InvalidSetting(GyozaError, ValueError):
    code = "invalid_setting"


class DownloadBroken(GyozaError):
    code = "download_broken"


START_OR_POINT = "start one with `gyoza up`, or point --server-url / GYOZA_SERVER_URL at yours"
BY_STATUS: Mapping[int, type[ResponseError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Unprocessable,
}


def refusal(response: httpx.Response) -> ResponseError:
    """The error for an answer that is no success."""
    problem = _problem(response)
    status = response.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        return Unauthorized(_about_the_key(response.request), response, problem)
    kind = BY_STATUS.get(status, ServerFailed if status >= 500 else ResponseError)
    return kind(str(problem.get("detail") or _bare(response)), response, problem)


def not_gyoza(response: httpx.Response) -> NotGyoza:
    text = f"What answers at {response.request.url} is no Gyoza server: check --server-url / GYOZA_SERVER_URL"
    return NotGyoza(text, response, {"code": "not_gyoza"})


def unreachable(error: httpx.RequestError, url: str, timeout_s: float | None) -> GyozaUnreachable:
    """The typed error for a request that got no answer."""
    request = cast("httpx.Request | None", getattr(error, "_request", None))
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NoServer(f"No Gyoza server answers at {url}: {START_OR_POINT}", request=request)
    if isinstance(error, httpx.TimeoutException):
        return NoAnswer(f"The Gyoza server at {url} did not answer within {timeout_s:g} s: try again", request=request)
    reason = str(error) or type(error).__name__
    return GyozaUnreachable(
        f"The connection to the Gyoza server at {url} broke off ({reason}): try again", request=request
    )


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _bare(response: httpx.Response) -> str:
    return f"{response.request.url} answered {response.status_code} {response.reason_phrase}".rstrip()


def _about_the_key(request: httpx.Request) -> str:
    server = f"The Gyoza server at {request.url.copy_with(raw_path=b'/')}".rstrip("/")
    if "X-API-Key" in request.headers:
        return f"{server} does not accept this API key: check --api-key / GYOZA_API_KEY"
    return f"{server} asks for an API key: give it with --api-key or GYOZA_API_KEY"


def _ending(run: Mapping[str, Any]) -> str:
    summary: Mapping[str, Any] = run.get("execution_summary") or {}
    reason = f" ({run['reason']})" if run.get("reason") else ""
    message = f": {summary['error_message']}" if summary.get("error_message") else ""
    return f"Run {run['id']} ended {run['state']}{reason}{message}"
