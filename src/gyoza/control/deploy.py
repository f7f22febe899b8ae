"""Deploying a definition: content that is new becomes a revision, content that was there becomes the latest again."""

import hashlib
import json
from dataclasses import replace
from datetime import datetime

import msgspec
import rfc8785

from gyoza.models.definition import OpDefinition
from gyoza.models.errors import DefinitionNotFound, Fault, Malformed
from gyoza.store import definitions
from gyoza.store.database import Connection, Database
from gyoza.store.definitions import Revision


async def deploy(database: Database, wanted: OpDefinition, now: datetime) -> tuple[OpDefinition, bool]:
    """The revision, and whether it is new."""
    content = wanted.content()

    async def work(connection: Connection) -> tuple[Revision, bool]:
        text = json.dumps(content, ensure_ascii=False)
        return await definitions.deploy(connection, wanted.id, wanted.version, digest(wanted), text, now)

    revision, is_new = await database.transact(work)
    return as_definition(revision), is_new


def digest(definition: OpDefinition) -> str:
    """`sha256:<hex>` of the canonical JSON (RFC 8785) of the content."""
    try:
        return "sha256:" + hashlib.sha256(rfc8785.dumps(definition.content())).hexdigest()
    except rfc8785.CanonicalizationError as error:
        raise Malformed([Fault("", f"no canonical JSON: {error}", "not_canonical")]) from error


def as_definition(revision: Revision) -> OpDefinition:
    content = OpDefinition.from_dict(msgspec.json.decode(revision.content))
    return replace(content, revision=revision.revision, digest=revision.digest)


async def latest(database: Database, name: str, version: str | None) -> OpDefinition:
    async with database.connection() as connection:
        found = await definitions.latest(connection, name, version)
    if found is None:
        raise DefinitionNotFound(name, version)
    return as_definition(found)


async def every(database: Database) -> list[OpDefinition]:
    async with database.connection() as connection:
        return [as_definition(revision) for revision in await definitions.newest_of_each(connection)]


async def history(database: Database, name: str) -> list[OpDefinition]:
    async with database.connection() as connection:
        found = await definitions.history(connection, name)
    if not found:
        raise DefinitionNotFound(name)
    return [as_definition(revision) for revision in found]
