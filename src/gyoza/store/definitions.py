"""Definitions: one row a revision, immutable but for when it was deployed last; and what is true of a whole name.

A name that was deleted keeps its revisions, since the history of runs refers to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

import msgspec

from gyoza.models.definition import OpDefinition
from gyoza.store.database import Connection


@dataclass(frozen=True)
class Revision:
    """`content` is the JSON that was deployed, with its defaults filled in."""

    name: str
    revision: int
    version: str | None
    digest: str
    content: msgspec.Raw
    deployed_at: datetime
    disabled: bool = False


def as_definition(revision: Revision) -> OpDefinition:
    content = OpDefinition.from_dict(msgspec.json.decode(revision.content))
    return replace(content, revision=revision.revision, digest=revision.digest, disabled=revision.disabled)


def as_shown(revision: Revision) -> dict[str, Any]:
    """`as_definition(revision).to_dict()` without the detour over what it means: a list may hold thousands.

    What was deployed before there was a member has its default.
    """
    content = msgspec.json.decode(revision.content, type=dict[str, msgspec.Raw])
    grown = {
        name: {**_BLANK[name], **msgspec.json.decode(content.get(name, b"{}"), type=dict[str, msgspec.Raw])}
        for name in ("retry_policy", "execution")
    }
    return {
        **_BLANK,
        **content,
        **grown,
        "revision": revision.revision,
        "digest": revision.digest,
        "disabled": revision.disabled,
    }


_BLANK = OpDefinition("").content()
_COLUMNS: LiteralString = "r.name, r.revision, r.version, r.digest, r.content, r.deployed_at, d.disabled_at IS NOT NULL"
_SELECT: LiteralString = (
    "SELECT " + _COLUMNS + " FROM revisions r LEFT JOIN definitions d ON d.name = r.name WHERE d.deleted_at IS NULL "
)
_AFTER_ALL: LiteralString = """
    greatest(%(now)s, (SELECT max(deployed_at) FROM revisions WHERE name = %(name)s) + interval '1 microsecond')
"""
"""Who waited for another deployment of the name comes after it, whatever the clock said before the wait."""
_NEWEST: LiteralString = "ORDER BY r.deployed_at DESC, r.revision DESC "


async def lock(connection: Connection, name: str) -> None:
    """Until the transaction ends, nobody else deploys or changes the definition of this name, be it there or not."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])


async def deploy(
    connection: Connection, name: str, version: str | None, digest: str, content: str, now: datetime
) -> tuple[Revision, bool]:
    """The revision, and whether it is new. The same content deployed again becomes the latest again.

    A name that was deleted is there again; one that is disabled stays so.
    """
    await lock(connection, name)
    await connection.execute(
        "INSERT INTO definitions (name) VALUES (%s) ON CONFLICT (name) DO UPDATE SET deleted_at = NULL", [name]
    )
    values = {"name": name, "version": version, "digest": digest, "content": content, "now": now}
    await connection.execute(
        "UPDATE revisions SET newest = false "
        "WHERE name = %(name)s AND version IS NOT DISTINCT FROM %(version)s AND newest",
        values,
    )
    again = await connection.execute(
        "UPDATE revisions r SET newest = true, deployed_at = " + _AFTER_ALL + "FROM definitions d "
        "WHERE d.name = r.name AND r.name = %(name)s AND r.digest = %(digest)s RETURNING " + _COLUMNS,
        values,
    )
    if row := await again.fetchone():
        return Revision(*row), False
    made = await connection.execute(
        "WITH r AS (INSERT INTO revisions (name, revision, version, digest, content, deployed_at) "
        "SELECT %(name)s, coalesce(max(revision), 0) + 1, %(version)s, %(digest)s, %(content)s, " + _AFTER_ALL + ""
        "FROM revisions WHERE name = %(name)s RETURNING name, revision, version, digest, content, deployed_at) "
        "SELECT " + _COLUMNS + " FROM r JOIN definitions d ON d.name = r.name",
        values,
    )
    row = await made.fetchone()
    assert row is not None
    return Revision(*row), True


async def latest(connection: Connection, name: str, version: str | None = None) -> Revision | None:
    """The one deployed last, of that version if given."""
    of_version: LiteralString = "AND r.version = %(version)s " if version is not None else ""
    cursor = await connection.execute(
        _SELECT + "AND r.name = %(name)s " + of_version + _NEWEST + "LIMIT 1", {"name": name, "version": version}
    )
    row = await cursor.fetchone()
    return None if row is None else Revision(*row)


async def newest_of_each(connection: Connection) -> list[Revision]:
    """The newest of each name and version, however many revisions there are."""
    cursor = await connection.execute(_SELECT + "AND r.newest ORDER BY r.name, r.version")
    return _revisions(await cursor.fetchall())


async def history(connection: Connection, name: str) -> list[Revision]:
    """Newest deployment first."""
    cursor = await connection.execute(_SELECT + "AND r.name = %s " + _NEWEST, [name])
    return _revisions(await cursor.fetchall())


async def set_disabled(connection: Connection, name: str, since: datetime | None) -> None:
    await connection.execute(
        "INSERT INTO definitions (name, disabled_at) VALUES (%s, %s) "
        "ON CONFLICT (name) DO UPDATE SET disabled_at = excluded.disabled_at",
        [name, since],
    )


async def delete(connection: Connection, name: str, now: datetime) -> None:
    await connection.execute(
        "INSERT INTO definitions (name, deleted_at) VALUES (%s, %s) "
        "ON CONFLICT (name) DO UPDATE SET deleted_at = excluded.deleted_at, disabled_at = NULL",
        [name, now],
    )


def _revisions(rows: Sequence[Sequence[object]]) -> list[Revision]:
    return [Revision(*row) for row in rows]  # type: ignore[arg-type]
