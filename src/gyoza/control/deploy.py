"""Deploying a definition: content that is new becomes a revision, content that was there becomes the latest again."""

import hashlib
import json
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import rfc8785

from gyoza.control.once import Asked, once
from gyoza.models.definition import OpDefinition
from gyoza.models.errors import DefinitionNotFound, Fault, Malformed
from gyoza.store import definitions
from gyoza.store.database import Connection, Database
from gyoza.store.definitions import as_definition, as_shown
from gyoza.store.idempotency import Reply

Render = Callable[[OpDefinition, bool], Reply]
"""How a revision is answered, and whether it is new."""


async def deploy(
    database: Database, wanted: OpDefinition, render: Render, now: datetime, asked: Asked | None = None
) -> Reply:
    text = json.dumps(wanted.content(), ensure_ascii=False)

    async def work(connection: Connection) -> Reply:
        revision, is_new = await definitions.deploy(connection, wanted.id, wanted.version, digest(wanted), text, now)
        return render(as_definition(revision), is_new)

    return await once(database, asked, work, now)


def digest(definition: OpDefinition) -> str:
    """`sha256:<hex>` of the canonical JSON (RFC 8785) of the content."""
    try:
        return "sha256:" + hashlib.sha256(rfc8785.dumps(definition.content())).hexdigest()
    except rfc8785.CanonicalizationError as error:
        raise Malformed([Fault("", f"no canonical JSON: {error}", "not_canonical")]) from error


async def latest(database: Database, name: str, version: str | None) -> OpDefinition:
    async with database.connection() as connection:
        found = await definitions.latest(connection, name, version)
    if found is None:
        raise DefinitionNotFound(name, version)
    return as_definition(found)


async def every(database: Database) -> list[dict[str, Any]]:
    """The newest of each name and version, as they are shown."""
    async with database.connection() as connection:
        found = await definitions.newest_of_each(connection)
    return [as_shown(revision) for revision in found]


async def history(database: Database, name: str) -> list[OpDefinition]:
    async with database.connection() as connection:
        found = await definitions.history(connection, name)
    if not found:
        raise DefinitionNotFound(name)
    return [as_definition(revision) for revision in found]


async def disable(database: Database, name: str, now: datetime) -> OpDefinition:
    """It takes no new runs; those that are there go on."""
    return await _changed(database, name, lambda connection: definitions.set_disabled(connection, name, now))


async def enable(database: Database, name: str) -> OpDefinition:
    return await _changed(database, name, lambda connection: definitions.set_disabled(connection, name, None))


async def delete(database: Database, name: str, now: datetime) -> None:
    """Gone from every list; its runs and their history stay, and those that wait still run."""
    await _changed(database, name, lambda connection: definitions.delete(connection, name, now))


async def _changed(
    database: Database, name: str, change: Callable[[Connection], Coroutine[Any, Any, None]]
) -> OpDefinition:
    """The definition after the change; as it was, when it is deleted."""

    async def work(connection: Connection) -> OpDefinition:
        await definitions.lock(connection, name)
        before = await definitions.latest(connection, name)
        if before is None:
            raise DefinitionNotFound(name)
        await change(connection)
        return as_definition(await definitions.latest(connection, name) or before)

    return await database.transact(work)
