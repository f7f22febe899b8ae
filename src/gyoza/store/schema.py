"""Bringing a database to the shape that this program expects."""

import logging
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import DBAPIError

from gyoza.models.errors import StartUpError

OLDEST_SUPPORTED = 15
logging.getLogger("alembic").setLevel(logging.WARNING)

_MIGRATIONS = Path(__file__).parent / "migrations"
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
            return _upgrade(url)
    except (psycopg.Error, DBAPIError) as error:
        raise StartUpError(_why(error)) from error


def unreachable(error: psycopg.Error) -> str:
    return f"The database cannot be reached: {_first_line(error)}. {_WHAT_NOW}"


def _why(error: psycopg.Error | DBAPIError) -> str:
    """What the driver said, also where SQLAlchemy wrapped it."""
    said = error if isinstance(error, psycopg.Error) else error.orig
    if isinstance(said, psycopg.OperationalError):
        return unreachable(said)
    return (
        f"The database refuses to be migrated: {_first_line(said)}. "
        "Give Gyoza a database of its own, and a user that may create tables in it"
    )


def _check_form(url: str) -> None:
    """The URL is not repeated, nor what PostgreSQL says of it: it may hold a password."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise StartUpError(f"The database URL is not one that PostgreSQL understands. {_WHAT_NOW}") from None


def _upgrade(url: str) -> str:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=pool.NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        _refuse_newer(connection, ScriptDirectory.from_config(config))
        command.upgrade(config, "head")
        return _current(connection) or ""


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    current, known = _current(connection), {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise StartUpError(
            f"The database is newer than this program (it is at step {current}, this program knows up to "
            f"{scripts.get_current_head()}): install the Gyoza version that migrated it, or a newer one"
        )


def _check_version(connection: psycopg.Connection) -> None:
    major = connection.info.server_version // 10000
    if major < OLDEST_SUPPORTED:
        raise StartUpError(f"The database is PostgreSQL {major}: Gyoza needs {OLDEST_SUPPORTED} or newer")


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
