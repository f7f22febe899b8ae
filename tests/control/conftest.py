from collections.abc import AsyncIterator

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg.conninfo import make_conninfo

from gyoza.store.database import Database

from .stage import Cluster, Still

# A busy machine is no fault of the code: neither time per example nor the making of examples is judged.
settings.register_profile("control", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("control")


@pytest.fixture(scope="session")
async def stage_url(postgres: str) -> str:
    """One database for all of these tests: a fresh one for each would cost more than most of them do."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE stage TEMPLATE template_gyoza")
    return make_conninfo(postgres, dbname="stage")


@pytest.fixture(scope="session")
async def still_database(stage_url: str) -> AsyncIterator[Database]:
    async with Database(stage_url, clock=Still(), size=20) as database:
        yield database


@pytest.fixture
async def cluster(still_database: Database) -> Cluster:
    """Led by this test, without workers and runs."""
    cluster = Cluster(still_database)
    await cluster.clear()
    await cluster.lead()
    return cluster
