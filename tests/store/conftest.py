from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gyoza.store.database import Database


@pytest.fixture(scope="session")
async def shelf_url(postgres: str) -> str:
    """One migrated database for tests that look only at rows of their own making."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shelf TEMPLATE template_gyoza")
    return make_conninfo(postgres, dbname="shelf")


@pytest.fixture(scope="session")
async def shelf(shelf_url: str) -> AsyncIterator[Database]:
    async with Database(shelf_url) as database:
        yield database
