"""Two servers on one database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import psycopg

from .stage import Command, Stage, free_port, until


class Twins:
    """`leader` leads at first, `other` does not."""

    def __init__(self, stage: Stage, database_url: str):
        self.stage = stage
        self.database_url = database_url
        stage.environ["GYOZA_DATABASE_URL"] = database_url
        self.leader = stage.server()
        until(lambda: self.leader_pid() == self.leader.pid, "the first server leads")
        port = str(free_port())
        self.other_url = f"http://127.0.0.1:{port}"
        self.other = stage.server("--port", port)

    def leader_pid(self) -> int:
        holder = self.ask("SELECT holder FROM leader")
        return int(holder.split(":")[1]) if holder else 0

    def ask(self, query: str) -> str:
        """The one value that is found, as text."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        return "" if row is None or row[0] is None else str(row[0])

    @asynccontextmanager
    async def client_of(self, server: Command, timeout_s: float = 30) -> AsyncIterator[httpx.AsyncClient]:
        key = (self.stage.data / "api-key").read_text().strip()
        url = self.stage.url if server is self.leader else self.other_url
        async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}, timeout=timeout_s) as client:
            yield client

    @contextmanager
    def locked(self, query: str, *values: object) -> Iterator[None]:
        """What this query locks stays locked inside."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(query.encode(), values)
            yield

    async def one_waits(self) -> bool:
        """Whether a connection of a server waits for a lock."""
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return self.ask(waits) == "1"
