"""Bringing a database to the shape that this program expects."""

from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gyoza.models.errors import StartUpError

OLDEST_SUPPORTED = 15
MIGRATIONS = Path(__file__).parent / "migrations"
_WHAT_NOW = (
    "Check GYOZA_DATABASE_URL (postgresql://user:password@host:5432/name), or leave it out to use the embedded one"
)
_LOCK = 0x6779_6F7A_61
"""Key of the advisory lock under which one of several starting servers migrates."""


def migrate(url: str) -> str:
    """Run every step that is missing; the revision that is reached. StartUpError says what is wrong with `url`."""
    _check_form(url)
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as raw:
            _check_version(raw)
            raw.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            return _advanced(raw, url)
    except psycopg.OperationalError as error:
        raise StartUpError(unreachable(error)) from error
    except psycopg.Error as error:
        raise StartUpError(
            f"The database refuses to be migrated: {_first_line(error)}. "
            "Give Gyoza a database of its own, and a user that may create tables in it"
        ) from error


def steps() -> list[str]:
    """The steps that this program knows, oldest first: the numbers of their files."""
    return sorted(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*.py"))


def _advanced(connection: psycopg.Connection, url: str) -> str:
    """Alembic takes half a second to load: it is loaded where there is something to do."""
    known, current = steps(), _current(connection)
    if current is not None and current == known[-1]:
        return current
    if current is not None and current not in known:
        raise StartUpError(
            f"The database is newer than this program (it is at step {current}, this program knows up to {known[-1]}): "
            "install the Gyoza version that migrated it, or a newer one"
        )
    from gyoza.store.upgrade import upgrade

    upgrade(url, MIGRATIONS)
    return known[-1]


def _current(connection: psycopg.Connection) -> str | None:
    found = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else row[0]


def unreachable(error: psycopg.Error) -> str:
    return f"The database cannot be reached: {_first_line(error)}. {_WHAT_NOW}"


def _check_form(url: str) -> None:
    """The URL is not repeated, nor what PostgreSQL says of it: it may hold a password."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise StartUpError(f"The database URL is not one that PostgreSQL understands. {_WHAT_NOW}") from None


def _check_version(connection: psycopg.Connection) -> None:
    major = connection.info.server_version // 10000
    if major < OLDEST_SUPPORTED:
        raise StartUpError(f"The database is PostgreSQL {major}: Gyoza needs {OLDEST_SUPPORTED} or newer")


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
