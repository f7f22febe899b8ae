"""What a look costs with a million runs and ten million events, against what it costs with ten thousand runs.

    python -m benchmarks.scale [--runs 1000000] [--repeats 200] [--keep FOLDER] [--json FILE]

Both databases lie in one PostgreSQL that is started for this, with memory enough for both: the work is compared, and
not the size of the memory. Every question is asked of both in turn, so that whatever else the machine does meets both
alike. A figure is the ratio of the medians: 1.0 is the same, 1.5 is the limit.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.fill import BASE, fill, run_id
from gyoza.control import query
from gyoza.control.claim import Claim, look
from gyoza.models.lifecycle import OpRunState
from gyoza.store import attempts, definitions, events, feed, queue, retention, workers
from gyoza.store.database import Database
from gyoza.store.embedded import embedded_database, postmaster
from gyoza.store.filters import Filters
from gyoza.store.schema import migrate

SMALL = 10_000
LIMIT = 1.5
MEMORY = "12GB"
"""Four times the largest table: a larger one would be read through a small ring, and not be kept when it is warmed."""
KEYS = {"runs": ("id",), "attempts": ("run_id", "attempt"), "events": ("run_id", "n"), "feed": ("pos",)}
Ask = Callable[["Shelf"], Awaitable[object]]


@dataclass
class Shelf:
    """A database with so many runs, and the chance by which its questions are asked."""

    database: Database
    runs: int
    chance: random.Random

    def any_run(self) -> str:
        return run_id(self.chance.randrange(self.runs))

    def deep(self, page: int) -> str:
        """The last run of a page of ten, newest first."""
        return run_id(max(0, self.runs - 1 - 10 * page))


def page_of(**filters: object) -> Ask:
    async def ask(shelf: Shelf) -> object:
        return await query.page(shelf.database, Filters(**filters), 10)  # type: ignore[arg-type]

    return ask


def page_inside(**filters: object) -> Ask:
    async def ask(shelf: Shelf) -> object:
        return await query.page(shelf.database, Filters(**filters), 10, starting_after=shelf.any_run())  # type: ignore[arg-type]

    return ask


async def one_run(shelf: Shelf) -> object:
    return await query.get(shelf.database, shelf.any_run())


async def its_events(shelf: Shelf) -> object:
    return await query.events_of(shelf.database, shelf.any_run(), 3, None)


async def its_attempts(shelf: Shelf) -> object:
    return await query.attempts_of(shelf.database, shelf.any_run())


async def a_claim(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        return await look(connection, Claim("w1", "i", frozenset(), 10, 0))


async def the_queue(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        return await queue.window(connection)


async def a_placing_look(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        await queue.admit(connection, BASE)
        return await workers.rooms(connection, BASE)


async def what_is_overdue(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        return await attempts.overdue(connection, BASE, 1000)


async def what_may_go(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        return await retention.lock_due(connection, BASE, BASE, 100, 10_000)


async def newest_events(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        return await events.newest(connection, shelf.any_run(), 1)


async def the_feed(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        found = await feed.positions(connection, shelf.chance.randrange(shelf.runs * 10), 100)
        return await feed.entries(connection, found)


async def a_definition(shelf: Shelf) -> object:
    async with shelf.database.connection() as connection:
        return await definitions.latest(connection, f"op-{shelf.chance.randrange(100)}")


RARE: Mapping[str, Mapping[str, object]] = {
    "a rare definition": {"op_definition": "op-rare"},
    "a rare image": {"image": "image-rare"},
    "a rare tag": {"tags": ("rare",)},
    "a rare reason": {"reason": "disk_full"},
    "a rare submitter": {"submitted_by": "user-rare"},
    "nothing": {"op_definition": "no such op"},
}
COMMON: Mapping[str, Mapping[str, object]] = {
    "no filter": {},
    "a state": {"state": OpRunState.FAILED},
    "a definition": {"op_definition": "op-7"},
    "a definition and state": {"op_definition": "op-7", "state": OpRunState.FAILED},
    "an image": {"image": "image-7"},
    "a tag": {"tags": ("tag-7",)},
    "two tags": {"tags": ("tag-7", "odd-1")},
    "a tag and state": {"tags": ("tag-7",), "state": OpRunState.COMPLETED},
    "a reason": {"reason": "op_error"},
    "a worker": {"worker_id": "w7"},
    "a worker and state": {"worker_id": "w7", "state": OpRunState.COMPLETED},
    "a submitter": {"submitted_by": "user-7"},
    "a submitter and state": {"submitted_by": "user-7", "state": OpRunState.COMPLETED},
    "since a time": {"created_gte": BASE},
}
ASKED: Mapping[str, Ask] = {
    **{f"page of {name}": page_of(**filters) for name, filters in {**COMMON, **RARE}.items()},
    **{f"page inside {name}": page_inside(**filters) for name, filters in COMMON.items()},
    "get a run": one_run,
    "events of a run": its_events,
    "newest events of a run": newest_events,
    "attempts of a run": its_attempts,
    "claim": a_claim,
    "window of the queue": the_queue,
    "room of the workers": a_placing_look,
    "overdue": what_is_overdue,
    "what may be deleted": what_may_go,
    "page of the feed": the_feed,
    "latest of a definition": a_definition,
}


async def compare(small: Shelf, large: Shelf, repeats: int) -> dict[str, tuple[float, float]]:
    """For each question the medians of both, in milliseconds."""
    found: dict[str, tuple[float, float]] = {}
    for name, ask in ASKED.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(repeats + 20):
            for shelf, kept in zip((small, large), times, strict=True):
                took = await timed(ask, shelf)
                if turn >= 20:  # the first ones prepare statements and warm caches
                    kept.append(took)
        found[name] = (statistics.median(times[0]), statistics.median(times[1]))
    return found


async def depth(shelf: Shelf, repeats: int) -> tuple[float, float]:
    """Page 1 against page 5,000 of the same list."""

    async def first(shelf: Shelf) -> object:
        return await query.page(shelf.database, Filters(), 10, starting_after=shelf.deep(0))

    async def deep(shelf: Shelf) -> object:
        return await query.page(shelf.database, Filters(), 10, starting_after=shelf.deep(4999))

    times = [(await timed(first, shelf), await timed(deep, shelf)) for _ in range(repeats + 20)][20:]
    return statistics.median(each[0] for each in times), statistics.median(each[1] for each in times)


async def warm(database: Database) -> None:
    """Every row is read once, by the key by which it is asked for later: then tables and indexes are in memory."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute("SET LOCAL enable_sort = off")
        for table, key in KEYS.items():
            ordered = f"SELECT t.*, lag({key[-1]}) OVER (ORDER BY {', '.join(key)}) FROM {table} t"
            await connection.execute(f"SELECT sum(length(o::text)) FROM ({ordered}) o".encode())


async def timed(ask: Ask, shelf: Shelf) -> float:
    started = time.perf_counter()
    await ask(shelf)
    return (time.perf_counter() - started) * 1000


async def measure(folder: Path, runs: int, repeats: int) -> dict[str, tuple[float, float]]:
    postmaster.SETTINGS["shared_buffers"] = MEMORY
    async with embedded_database(folder, say=note) as url:
        urls = [prepared(url, count) for count in (SMALL, runs)]
        async with Database(urls[0]) as one, Database(urls[1]) as two:
            for each in (one, two):
                await warm(each)
            small, large = Shelf(one, SMALL, random.Random(1)), Shelf(two, runs, random.Random(1))
            found = await compare(small, large, repeats)
            found["page 5,000 against page 1"] = await depth(large, repeats)
            return found


def prepared(url: str, runs: int) -> str:
    """The URL of a database with so many runs, which is made where it is not there yet."""
    name = f"runs_{runs}"
    ours = make_conninfo(url, dbname=name)
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return ours
        connection.execute(f"CREATE DATABASE {name}".encode())
    migrate(ours)
    started = time.monotonic()
    with psycopg.connect(ours, autocommit=True) as connection:
        fill(connection, runs, note)
    note(f"{runs:,} runs, {runs * 10:,} events, made in {time.monotonic() - started:.0f} s")
    return ours


def note(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="where the databases are kept, and found again the next time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gyoza-scale-") as temporary:
        found = asyncio.run(measure(options.keep or Path(temporary) / "data", options.runs, options.repeats))
    print(f"{'asked':<40} {'small ms':>9} {'large ms':>9} {'ratio':>6}")
    for name, (small, large) in found.items():
        above = "  <-- above the limit" if large / small > LIMIT else ""
        print(f"{name:<40} {small:>9.3f} {large:>9.3f} {large / small:>6.2f}{above}")
    if options.json:
        facts = {"python": platform.python_version(), "machine": platform.platform(), "cpus": os.cpu_count()}
        ratios = {name: {"small_ms": s, "large_ms": b, "ratio": b / s} for name, (s, b) in found.items()}
        options.json.write_text(json.dumps({"runs": options.runs, "facts": facts, "asked": ratios}, indent=1))
    raise SystemExit(any(large / small > LIMIT for small, large in found.values()))


if __name__ == "__main__":
    main()
