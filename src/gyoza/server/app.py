"""The composition root: one server process over one database."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

import gyoza.server.problems
from gyoza.control import cluster
from gyoza.server.answers import Problem
from gyoza.server.auth import Authentication
from gyoza.server.context import Context, Routes, security
from gyoza.server.filestore import FileStore, Folder
from gyoza.server.keyring import Keyring
from gyoza.server.loops import lead
from gyoza.server.routes import bulk, definitions, files, health, keys, logs, runs, workers
from gyoza.server.settings import Settings
from gyoza.store.bell import Bell
from gyoza.store.database import Database

ROUTERS: tuple[Routes, ...] = tuple(
    each.router for each in (health, definitions, bulk, runs, logs, workers, files, keys)
)
_TITLE, _VERSION = "Gyoza", version("gyoza")
_SECURITY = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


def create_app(context: Context, api_key: str) -> FastAPI:
    app = FastAPI(title=_TITLE, version=_VERSION, redoc_url=None, swagger_ui_oauth2_redirect_url=None)
    app.state.context = context
    for router in ROUTERS:
        app.include_router(router)
    gyoza.server.problems.install(app)
    app.add_middleware(Authentication, keyring=Keyring(context.database, context.bell, api_key))
    app.openapi = lambda: openapi(app)
    return app


@asynccontextmanager
async def running(settings: Settings, database_url: str, stopping: asyncio.Event) -> AsyncGenerator[Context]:
    """Everything that a server process runs beside its handlers. `stopping`, once set, ends every open wait."""
    async with Database(database_url) as database, Bell(settings.direct_url or database_url) as bell:
        cluster_id = await cluster.identity(database)
        folder = settings.data_dir / "files"
        context = Context(
            database=database,
            bell=bell,
            files=FileStore(folder),
            shelf=Folder(folder),
            log_limit=settings.log_limit_mb * 2**20,
            pace=settings.pace,
            cluster_id=cluster_id,
        )
        leading = asyncio.create_task(lead(database, bell, settings.pace, stopping))
        closing = asyncio.create_task(_close_on(stopping, bell))
        try:
            yield context
        finally:
            stopping.set()
            await asyncio.gather(leading, closing)


async def _close_on(stopping: asyncio.Event, bell: Bell) -> None:
    await stopping.wait()
    bell.close()


def openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, and in it the thin routes, which FastAPI does not see."""
    if app.openapi_schema is None:
        document = get_openapi(title=_TITLE, version=_VERSION, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        document["components"]["securitySchemes"] = _SECURITY
        _as_problems(document["paths"])
        for router in ROUTERS:
            _describe(router, document["paths"], schemas)
        app.openapi_schema = document
    return app.openapi_schema


def _as_problems(paths: dict[str, Any]) -> None:
    """Refusals have a media type of their own, which FastAPI does not know."""
    for operation in (operation for item in paths.values() for operation in item.values()):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                response["content"] = _content("Problem", "problem+json")


def _describe(router: Routes, paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    for thin in router.thin:
        shapes = [shape for shape in (thin.body, thin.answer, Problem) if shape is not None]
        _, found = models_json_schema(
            [(shape, "validation") for shape in shapes], ref_template="#/components/schemas/{model}"
        )
        schemas.update({name: schema for name, schema in found.get("$defs", {}).items() if name not in schemas})
        entry: dict[str, Any] = {"tags": [router.tag], "summary": thin.summary, "responses": {}}
        entry["security"] = security(thin.scopes)
        if thin.body is not None:
            entry["requestBody"] = {"required": True, "content": _content(thin.body.__name__)}
        for status in (*thin.statuses, 401, 403):
            shape, media = (thin.answer, "json") if status < 400 else (Problem, "problem+json")
            described = {
                "description": "done" if status < 400 else "refused",
                "content": _content(shape.__name__, media),
            }
            entry["responses"][str(status)] = described
        names = [part[1:-1] for part in thin.path.split("/") if part.startswith("{")]
        entry["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
        paths.setdefault(thin.path, {})[thin.method.lower()] = entry


def _content(model: str, media: str = "json") -> dict[str, Any]:
    return {f"application/{media}": {"schema": {"$ref": f"#/components/schemas/{model}"}}}
