"""Running the numbered steps that are missing, by Alembic: plain SQL, in one transaction."""

import logging
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, pool
from sqlalchemy.exc import DBAPIError

logging.getLogger("alembic").setLevel(logging.WARNING)


def upgrade(url: str, migrations: Path) -> None:
    """To the newest step; raises what the driver says, not what SQLAlchemy wraps it in."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=pool.NullPool)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise error.orig or error from error
