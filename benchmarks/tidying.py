"""What submitting costs while runs are deleted without a pause, against what it costs while nothing is.

    python -m benchmarks.tidying [--runs 20000] [--callers 4]

Only printed: how far the two lie apart says more of the disk and the processors than of the code.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import psycopg

from benchmarks.fill import fill
from gyoza.control import leadership
from gyoza.control.submit import AdHoc, submit
from gyoza.control.tidy import tidy
from gyoza.server.filestore import Folder
from gyoza.server.submission import one
from gyoza.store.database import Database
from gyoza.store.embedded import embedded_database
from gyoza.store.schema import migrate

MANY_YEARS = timedelta(days=10_000)


async def submitted(database: Database, callers: int, until: "asyncio.Future[object]") -> list[float]:
    """How long each submit took, in ms, of so many callers that submit until then."""
    took: list[float] = []

    async def call() -> None:
        while not until.done():
            began = time.perf_counter()
            await submit(database, AdHoc("busybox"), "benchmark", one, database.clock.now())
            took.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(call() for _ in range(callers)))
    return took


async def deleted(database: Database, folder: Path) -> int:
    """Everything that is over goes, batch after batch; how many runs that were."""
    epoch, total = None, 0
    while True:
        epoch = await leadership.hold(database, "benchmark", epoch)
        assert epoch is not None
        now = database.clock.now() + MANY_YEARS
        count = (await tidy(database, epoch, timedelta(0), Folder(folder), now))["runs"]
        if not count:
            return total
        total += count


def said(name: str, took: list[float]) -> str:
    worst = statistics.quantiles(took, n=100)[-1]
    return f"{name:<22}{len(took):>8} submits, median {statistics.median(took):.2f} ms, 99th of 100 {worst:.2f} ms"


async def measure(runs: int, callers: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with embedded_database(Path(folder) / "database") as url:
            migrate(url)
            with psycopg.connect(url, autocommit=True) as connection:
                fill(connection, runs, print)
            async with Database(url) as database:
                began = time.perf_counter()
                deleting = asyncio.create_task(deleted(database, Path(folder) / "files"))
                beside = await submitted(database, callers, deleting)
                took_s = time.perf_counter() - began
                alone = await submitted(database, callers, asyncio.ensure_future(asyncio.sleep(took_s)))
        print(said("while runs are deleted", beside), said("while nothing is", alone), sep="\n")
        print(f"{deleting.result()} runs with 10 events each were deleted, {deleting.result() / took_s:.0f} a second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=4)
    given = parser.parse_args()
    asyncio.run(measure(given.runs, given.callers))
