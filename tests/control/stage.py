"""A cluster without processes: a real database, a clock that stands still, workers that say what they are told to."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gyoza.control import leadership
from gyoza.control.cancel import cancel
from gyoza.control.claim import Claim, Claimed, look
from gyoza.control.deploy import deploy
from gyoza.control.heartbeat import Heard, heartbeat
from gyoza.control.once import Asked, Reply
from gyoza.control.place import place
from gyoza.control.publish import publish
from gyoza.control.query import get
from gyoza.control.reap import reap
from gyoza.control.report import Report, Result, report
from gyoza.control.retry import retry
from gyoza.control.submit import AdHoc, Options, Wanted, submit, submit_all
from gyoza.models.definition import OpDefinition
from gyoza.models.lifecycle import EventType as E
from gyoza.models.resources import Constraints, Resources
from gyoza.models.run import OpRun
from gyoza.policy.life import Happening
from gyoza.policy.liveness import Pace
from gyoza.server.loops import DUTIES, Leading
from gyoza.store import workers
from gyoza.store.attempts import Assigned
from gyoza.store.database import Clock, Connection, Database
from gyoza.store.workers import Registration

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PACE = Pace(heartbeat_s=5, lease_s=20)
BIG = Resources(cpu_m=64_000, ram_mb=256_000, slots=100)

STARTED = Happening(E.STARTED)
COMPLETED = Happening(E.COMPLETED, payload={"outputs": {"y": 1}})


def failed(reason: str = "op_error") -> Happening:
    return Happening(E.FAILED, payload={"reason": reason})


class Still(Clock):
    """A clock that stands still; it does not follow the database's."""

    def __init__(self, at: datetime = NOW) -> None:
        super().__init__()
        self.at = at

    def now(self) -> datetime:
        return self.at

    async def sync(self, connection: Connection) -> None:
        pass


@dataclass
class Cluster:
    """Verbs as tests need them. `epoch` is a leadership that does not run out while a test thinks."""

    database: Database
    epoch: int = 0
    now: datetime = NOW
    pace: Pace = PACE
    spoken: Counter[str] = field(default_factory=Counter)
    holders: dict[tuple[str, int], str] = field(default_factory=dict)

    async def clear(self) -> None:
        for table in ("runs", "workers", "revisions", "definitions", "files", "keys", "idempotency", "outbox", "feed"):
            await self.ask(f"DELETE FROM {table}")
        await self.ask("UPDATE leader SET expires_at = '-infinity'")
        self.spoken.clear()
        self.now = NOW

    async def lead(self) -> None:
        epoch = await leadership.hold(self.database, "test", None)
        assert epoch is not None
        self.epoch = epoch
        await self.ask("UPDATE leader SET expires_at = 'infinity'")

    async def lead_anew(self) -> None:
        """Whoever leads."""
        await self.ask("UPDATE leader SET expires_at = '-infinity'")
        await self.lead()

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def submit(self, *, attempts: int = 1, priority: int = 5, **constraints: int) -> str:
        options = Options(priority, retry_policy={"max_attempts": attempts})
        return (await self.ask_for(AdHoc("busybox", {}, options, Constraints(**constraints)))).id

    async def ask_for(self, *wanted: Wanted, asked: Asked | None = None) -> OpRun:
        """The (last) run as the submitter is told of it."""
        made: list[OpRun] = []

        def render(runs: Sequence[OpRun]) -> Reply:
            made.extend(runs)
            return Reply(201, runs[-1].id.encode())

        if len(wanted) == 1:
            await submit(self.database, wanted[0], "test", render, self.now, asked)
        else:
            await submit_all(self.database, wanted, "test", render, self.now, asked)
        return made[-1]

    async def deploy(self, definition: OpDefinition) -> tuple[OpDefinition, bool]:
        """The revision, and whether it is new."""
        told: list[tuple[OpDefinition, bool]] = []

        def render(revision: OpDefinition, is_new: bool) -> Reply:
            told.append((revision, is_new))
            return Reply(201, b"")

        await deploy(self.database, definition, render, self.now)
        return told[0]

    async def beat(self, worker: str = "w1", holding: Iterable[tuple[str, int]] = (), **said: Any) -> Heard:
        """The next heartbeat of a worker, which registers it if need be."""
        self.spoken[worker] += 1
        how = {"instance": f"{worker}-a", "host_id": "host-1", "resources": BIG, "engines": ("docker",), **said}
        said_now = Registration(worker, seq=self.spoken[worker], **how)
        return await heartbeat(self.database, said_now, frozenset(holding), self.pace, self.now)

    async def keep_alive(self, worker: str, seconds: float, holding: Iterable[tuple[str, int]] = ()) -> None:
        """Time passes, and the worker is heard all along."""
        self.later(seconds)
        await self.beat(worker, holding)

    async def place(self) -> int:
        return await place(self.database, self.epoch, self.now)

    async def publish(self) -> int:
        return await publish(self.database, self.epoch)

    async def look(
        self, worker: str = "w1", known: Iterable[tuple[str, int]] = (), *, most: int = 100, instance: str | None = None
    ) -> Claimed:
        wanted = Claim(worker, instance or f"{worker}-a", frozenset(known), most, 0)
        async with self.database.connection() as connection:
            claimed = await look(connection, wanted)
        self.holders |= {(each.run_id, each.attempt): worker for each in claimed.assignments}
        return claimed

    async def handed(self, worker: str = "w1") -> Assigned:
        """The only assignment of a worker."""
        (assigned,) = (await self.look(worker)).assignments
        return assigned

    async def assigned(self, worker: str = "w1", **how: Any) -> Assigned:
        """A run that was handed to this worker."""
        if worker not in self.spoken:
            await self.beat(worker)
        run_id = await self.submit(**how)
        await self.place()
        return next(each for each in (await self.look(worker)).assignments if each.run_id == run_id)

    async def running(self, worker: str = "w1", **how: Any) -> Assigned:
        held = await self.assigned(worker, **how)
        await self.tell(held, 1, STARTED)
        return held

    async def tell(self, held: Assigned, seq: int, *events: Happening, **how: Any) -> Result:
        (result,) = await self.tell_all(said(held, seq, *events, **how))
        return result

    async def tell_all(self, *reports: Report) -> list[Result]:
        """From the worker that was handed the attempt, where the report does not say from whom it is."""
        told = [
            replace(each, worker_id=each.worker_id or self.holders.get((each.run_id, each.attempt), ""))
            for each in reports
        ]
        return await report(self.database, told, self.now)

    async def reap(self) -> dict[str, int]:
        return await reap(self.database, self.epoch, self.pace, self.now)

    async def cancel(self, run_id: str) -> None:
        await cancel(self.database, run_id, self.now)

    async def retry(self, run_id: str) -> None:
        await retry(self.database, run_id, self.now)

    async def run(self, run_id: str) -> OpRun:
        return await get(self.database, run_id)

    async def state(self, run_id: str) -> tuple[str, int]:
        run = await self.run(run_id)
        return run.state.value, run.current_attempt

    async def story(self, run_id: str) -> list[str]:
        """All events of a run, with the attempt that each belongs to; their numbers have no gap."""
        query = """
            SELECT r.next_event, e.n, e.type, e.attempt FROM runs r LEFT JOIN events e ON e.run_id = r.id
            WHERE r.id = %s ORDER BY e.n
            """
        rows = [row for row in await self.ask(query, run_id) if row[0]]
        assert [row[1] for row in rows] == list(range(rows[0][0] if rows else 0))
        return [f"{kind} {attempt}" for _, _, kind, attempt in rows]

    async def slots_taken(self, worker: str = "w1") -> int:
        async with self.database.connection() as connection:
            return len((await workers.taken(connection, worker)).get(worker, ()))

    async def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(query.encode(), values or None)
            return await cursor.fetchall() if cursor.description else []


def said(held: Assigned, seq: int, *events: Happening, worker: str = "", **how: Any) -> Report:
    return Report(worker, held.run_id, held.attempt, held.lease, seq, events, **how)


async def turn(server: Leading) -> dict[str, int]:
    """It renews, or tries to win, and does all that a leader does; counts of that."""
    await server.hold()
    return await duties(server)


async def duties(server: Leading) -> dict[str, int]:
    counts: dict[str, int] = {}
    for duty in DUTIES:
        counts.update(await server.do(duty))
    return counts
