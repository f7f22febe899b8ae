"""Waiting for a server that is away: what a worker asks, it asks until it is answered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from gyoza.client.errors import GyozaUnreachable, NotGyoza, ResponseError, ServerFailed, TooLarge

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer, however long it takes; a refusal is an answer and is raised."""
    for pause_s in pauses():
        try:
            return await ask()
        except (GyozaUnreachable, ResponseError) as error:
            if is_refusal(error):
                raise
            _log.warning("trying again in %s s: %s", pause_s, error)
        await asyncio.sleep(pause_s)
    raise AssertionError("unreachable")


def is_refusal(error: Exception) -> bool:
    """Whether the server itself said no. What stands before it may answer anything while it restarts: 404, 429, a page.

    Unless it says that a body is too large: it will say so again.
    """
    if not isinstance(error, ResponseError) or isinstance(error, NotGyoza | ServerFailed):
        return False
    return "code" in error.problem or isinstance(error, TooLarge)


def pauses() -> Iterator[float]:
    """Seconds, growing, without an end."""
    pause_s = 0.1
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, 3.2)
