"""What was recorded while everything failed: as users read it, as the database holds it, and what was left behind."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from gyoza.client import GyozaClient

from .crowd import Deed
from .faults import Fault

Json = dict[str, Any]

WITNESS = """
    UPDATE cluster SET id = gen_random_uuid();
    CREATE TABLE witnessed (what text NOT NULL, t timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO witnessed VALUES (format('%s: %s -> %s', TG_TABLE_NAME, row_to_json(OLD), row_to_json(NEW)));
            RETURN NULL;
        END $$;
    CREATE TRIGGER witness_ended AFTER UPDATE ON attempts FOR EACH ROW WHEN (
        OLD.finished_at IS NOT NULL AND (
            (OLD.state, OLD.progress, OLD.outputs::text, OLD.reason, OLD.held_by, OLD.lease_token, OLD.assigned_at,
                OLD.started_at, OLD.finished_at, coalesce(OLD.settled_at, NEW.settled_at)) IS DISTINCT FROM
            (NEW.state, NEW.progress, NEW.outputs::text, NEW.reason, NEW.held_by, NEW.lease_token, NEW.assigned_at,
                NEW.started_at, NEW.finished_at, NEW.settled_at))
    ) EXECUTE FUNCTION witness();
    CREATE TRIGGER witness_events AFTER UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION witness();
    CREATE TABLE evictions (worker text NOT NULL, t timestamptz NOT NULL);
    CREATE FUNCTION note_eviction() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO evictions VALUES (NEW.id, NEW.evicted_at); RETURN NULL; END $$;
    CREATE TRIGGER note_eviction AFTER UPDATE ON workers FOR EACH ROW
        WHEN (OLD.evicted_at IS NULL AND NEW.evicted_at IS NOT NULL) EXECUTE FUNCTION note_eviction();
"""
"""Run before all: the database itself writes down what must never happen, and when workers were evicted."""

UNSETTLED = """
    SELECT count(*) FROM runs r JOIN attempts a ON a.run_id = r.id
    WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') OR a.settled_at IS NULL
"""
ATTEMPTS = """
    SELECT run_id::text, attempt, state, outputs, reason, summary, held_by, assigned_at, started_at, finished_at,
        settled_at
    FROM attempts ORDER BY run_id, attempt
"""


@dataclass(frozen=True)
class Tried:
    """An attempt, as the database holds it."""

    run_id: str
    attempt: int
    state: str
    outputs: Any
    reason: str | None
    summary: Json
    held_by: str | None
    assigned_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    settled_at: datetime | None

    def __str__(self) -> str:
        return f"{self.run_id}-{self.attempt}"


@dataclass(frozen=True)
class History:
    """Runs and events by run; events in the order in which they were read. `kept` and `feed`: (run, number) of every
    event in the database and in the feed. `witnessed`: what the database saw and must not be.
    """

    runs: Mapping[str, Json] = field(default_factory=dict[str, Json])
    events: Mapping[str, Sequence[Json]] = field(default_factory=dict[str, Sequence[Json]])
    tries: Sequence[Tried] = ()
    kept: Sequence[tuple[str, int]] = ()
    feed: Sequence[tuple[str, int]] = ()
    unpublished: int = 0
    witnessed: Sequence[str] = ()
    evictions: Sequence[tuple[str, datetime]] = ()
    workers: Sequence[Json] = ()
    logs: Mapping[tuple[str, int], bytes] = field(default_factory=dict[tuple[str, int], bytes])
    left: Sequence[str] = ()
    deeds: Sequence[Deed] = ()
    faults: Sequence[Fault] = ()

    def tries_of(self, run_id: str) -> list[Tried]:
        return [tried for tried in self.tries if tried.run_id == run_id]


def is_over(database_url: str) -> bool:
    """Whether every run has ended, and all its attempts are settled."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(UNSETTLED).fetchone() == (0,)


def read(client: GyozaClient, database_url: str, **more: Any) -> History:
    with psycopg.connect(database_url, row_factory=dict_row) as connection:

        def ask(query: str) -> list[Any]:
            return connection.execute(query.encode()).fetchall()

        run_ids = [row["id"] for row in ask("SELECT id::text FROM runs ORDER BY id")]
        tries = [Tried(**row) for row in ask(ATTEMPTS)]
        return History(
            runs={run_id: client.get_run(run_id) for run_id in run_ids},
            events={run_id: every_event(client, run_id) for run_id in run_ids},
            tries=tries,
            kept=[(row["id"], row["n"]) for row in ask("SELECT run_id::text AS id, n FROM events ORDER BY run_id, n")],
            feed=[(row["id"], row["n"]) for row in ask("SELECT run_id::text AS id, n FROM feed ORDER BY pos")],
            unpublished=len(ask("SELECT FROM outbox")),
            witnessed=[row["what"] for row in ask("SELECT what FROM witnessed ORDER BY t")],
            evictions=[(row["worker"], row["t"]) for row in ask("SELECT worker, t FROM evictions")],
            workers=client.list_workers(),
            logs={(tried.run_id, tried.attempt): log(client, tried) for tried in tries if tried.started_at},
            **more,
        )


def every_event(client: GyozaClient, run_id: str) -> list[Json]:
    found: list[Json] = []
    while True:
        page = client.get_events(run_id, after=found[-1]["id"] if found else None)
        found += page["events"]
        if not page["has_more"]:
            return found


def log(client: GyozaClient, tried: Tried) -> bytes:
    return b"".join(client.follow_logs(tried.run_id, tried.attempt))


def processes_of(is_ours: Callable[[str], bool]) -> list[str]:
    """The living processes of these runs, in containers or not."""
    found: list[str] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            run_id = process.environ().get("GYOZA_RUN_ID", "")
            if is_ours(run_id) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {process.pid} of run {run_id}: {process.name()}")
    return found
