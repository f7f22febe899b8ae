"""The composition root: one server process over one database."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

import gyoza.server.problems
from gyoza.control import cluster
from gyoza.server import document
from gyoza.server.auth import Authentication
from gyoza.server.context import Context, Routes
from gyoza.server.edge import Edge, Methods
from gyoza.server.filestore import FileStore, Folder
from gyoza.server.keyring import Keyring
from gyoza.server.loops import Keeping, follow_feed, lead
from gyoza.server.routes import bulk, definitions, files, health, keys, logs, metrics, runs, streams, workers
from gyoza.server.settings import Settings
from gyoza.server.tail import Tail
from gyoza.store.bell import Bell
from gyoza.store.database import Database

ROUTERS: tuple[Routes, ...] = tuple(
    each.router for each in (health, metrics, definitions, bulk, runs, streams, logs, workers, files, keys)
)
_TITLE, _VERSION = "Gyoza", version("gyoza")


def create_app(context: Context, api_key: str) -> FastAPI:
    app = routed()
    app.state.context = context
    app.state.methods = Methods([(call.method, call.path) for router in ROUTERS for call in router.calls])
    gyoza.server.problems.install(app)
    app.add_middleware(Edge, methods=app.state.methods)
    app.add_middleware(Authentication, keyring=Keyring(context.database, context.bell, api_key))
    return app


def routed() -> FastAPI:
    """All calls, for the OpenAPI document alone where nothing else is added."""
    app = FastAPI(
        title=_TITLE, version=_VERSION, redoc_url=None, swagger_ui_oauth2_redirect_url=None, redirect_slashes=False
    )
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: openapi(app)
    return app


@asynccontextmanager
async def running(settings: Settings, database_url: str, stopping: asyncio.Event) -> AsyncGenerator[Context]:
    """Everything that a server process runs beside its handlers. `stopping`, once set, ends every open wait."""
    async with Database(database_url) as database, Bell(settings.direct_url or database_url) as bell:
        cluster_id = await cluster.identity(database)
        tail, folder = Tail(database), settings.data_dir / "files"
        context = Context(
            database=database,
            bell=bell,
            tail=tail,
            files=FileStore(folder),
            shelf=Folder(folder),
            log_limit=settings.log_limit_mb * 2**20,
            pace=settings.pace,
            cluster_id=cluster_id,
        )
        loops = (
            lead(database, bell, settings.pace, stopping, Keeping(settings.keep_for, context.shelf)),
            follow_feed(tail, bell, stopping),
            _close_on(stopping, bell, tail),
        )
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield context
        finally:
            stopping.set()
            await asyncio.gather(*tasks)


async def _close_on(stopping: asyncio.Event, *waited_on: Bell | Tail) -> None:
    await stopping.wait()
    for each in waited_on:
        each.close()


def openapi(app: FastAPI) -> dict[str, Any]:
    """Drawn once, when it is first asked for."""
    if app.openapi_schema is None:
        calls = [(router.tag, call) for router in ROUTERS for call in router.calls]
        app.openapi_schema = document.openapi(app, _TITLE, _VERSION, calls)
    return app.openapi_schema
