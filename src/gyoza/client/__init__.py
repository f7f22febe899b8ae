"""Talking to a Gyoza server from Python.

>>> from gyoza.client import gyoza_client
>>> gyoza_client.run("thumbnails", image="gyoza://files/...")
"""

from typing import Any

from gyoza.client.errors import (
    BadRequest,
    Conflict,
    DownloadBroken,
    Forbidden,
    GyozaUnreachable,
    InvalidSetting,
    NoAnswer,
    NoServer,
    NotFound,
    NotGyoza,
    ResponseError,
    RunCancelled,
    RunFailed,
    ServerFailed,
    TooLarge,
    Unauthorized,
    Unprocessable,
)
from gyoza.client.http import AsyncGyozaClient, GyozaClient

gyoza_client: GyozaClient


def __getattr__(name: str) -> Any:
    """`gyoza_client` is made when it is first asked for, from the environment of that moment."""
    if name != "gyoza_client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, GyozaClient())


__all__ = [
    "AsyncGyozaClient",
    "BadRequest",
    "Conflict",
    "DownloadBroken",
    "Forbidden",
    "GyozaClient",
    "GyozaUnreachable",
    "InvalidSetting",
    "NoAnswer",
    "NoServer",
    "NotFound",
    "NotGyoza",
    "ResponseError",
    "RunCancelled",
    "RunFailed",
    "ServerFailed",
    "TooLarge",
    "Unauthorized",
    "Unprocessable",
    "gyoza_client",
]
