"""The server's parts, loaded only where a command needs them: they come with the extra `gyoza[server]`."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

from gyoza.models.errors import StartUpError


def server_parts() -> Any:
    """Settings, serve, database, migrate, ...; StartUpError where the extra is not installed."""
    try:
        from gyoza.server.process import database, serve, stop_on_signals
        from gyoza.server.settings import Settings, kept_api_key
        from gyoza.store.schema import migrate
    except ModuleNotFoundError as error:
        raise StartUpError(
            f"This installation has no server ({error.name} is missing): install it with pip install 'gyoza[server]'"
        ) from error
    return SimpleNamespace(
        Settings=Settings,
        kept_api_key=kept_api_key,
        database=database,
        serve=serve,
        stop_on_signals=stop_on_signals,
        migrate=migrate,
        run=_run,
    )


def _run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop where it is to be had: it is what the server is measured on."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)
