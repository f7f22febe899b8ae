"""The hot queries find what they want by an index on a full database, also by the plan that knows no values.

What is asked of PostgreSQL is exactly what the store sends: its cursors are replaced by ones that explain.
"""

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.store import (
    attempts,
    definitions,
    endings,
    events,
    feed,
    files,
    idempotency,
    keys,
    logs,
    new_runs,
    outbox,
    pages,
    queue,
    retention,
    runs,
    workers,
)
from gyoza.store.database import Connection, Database
from gyoza.store.filters import Filters, Place
from gyoza.store.ids import new_id
from gyoza.store.new_runs import NewRun

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A_RUN = "01890000-0000-7000-8000-000000010000"
FULL = (
    *("runs", "run_tags", "attempts", "events", "feed", "idempotency", "definitions", "revisions"),
    *("logs", "log_chunks", "log_discards", "keys"),
)

FILL = (
    """
    INSERT INTO workers (id, instance, host_id, seq, resources, tags, engines, images, registered_at, seen_at)
    SELECT 'w' || n, 'i', 'h', 1, '{"cpu": 1, "ram_mb": 1, "slots": 1}', '{}', '{docker}', '{}', now(), now()
    FROM generate_series(1, 50) n
    """,
    """
    INSERT INTO revisions (name, revision, digest, content, deployed_at)
    SELECT 'op-' || n, 1, 'd', '{}', now() FROM generate_series(0, 99) n
    """,
    """
    INSERT INTO revisions (name, revision, version, digest, content, deployed_at, newest)
    SELECT 'many-' || n, 5 * v + r, v::text, v || '-' || r, json_build_object('description', repeat('word ', 100)),
        now() + (5 * v + r) * interval '1 s', r = 4
    FROM generate_series(1, 3000) n, generate_series(0, 1) v, generate_series(0, 4) r
    """,
    "INSERT INTO definitions (name) SELECT DISTINCT name FROM revisions",
    """
    INSERT INTO runs (id, state, priority, inputs, max_attempts, engines, cpu_m, image, op_definition, revision,
        next_event, queue_at, created_at, updated_at, submitted_by, tags, due, run_at, reason, worker_id, ended_at,
        delete_after_s, delete_at, pinned)
    SELECT ('01890000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid,
        CASE WHEN n % 10 = 0 THEN 'PENDING' WHEN n % 400 = 1 THEN 'RUNNING' WHEN n % 50 = 2 THEN 'FAILED'
            ELSE 'COMPLETED' END,
        5, '{"some": "inputs"}', 1, '{docker}', 1000 * (n % 7), 'image-' || n % 100, 'op-' || n % 100, 1, 4,
        timestamptz '2026-01-01 00:00Z' + n * interval '1 s', timestamptz '2026-01-01 00:00Z' + n * interval '1 s',
        now(), 'user-' || n % 50, ARRAY['tag-' || n % 40, 'odd-' || n % 2], n % 30 <> 0,
        CASE WHEN n % 30 = 0 THEN now() + n * interval '1 s' END,
        CASE WHEN n % 50 = 2 THEN (ARRAY['op_error', 'oom_killed', 'worker_lost', 'external'])[1 + n % 4] END,
        CASE WHEN n % 10 <> 0 THEN 'w' || 1 + n % 50 END,
        CASE WHEN n % 10 <> 0 AND n % 400 <> 1 THEN now() + n * interval '1 s' END,
        CASE WHEN n % 3 = 0 THEN 60 END,
        CASE WHEN n % 3 = 0 AND n % 10 <> 0 THEN now() + n * interval '1 s' END, n % 100 = 7
    FROM generate_series(1, 20000) n
    """,
    "INSERT INTO run_tags (tag, created_at, run_id) SELECT unnest(tags), created_at, id FROM runs",
    "INSERT INTO feed (run_id, n) SELECT id, n FROM runs, generate_series(0, 3) n",
    """
    INSERT INTO idempotency (owner, key, fingerprint, status, answer, expires_at)
    SELECT 'user-' || n % 50, 'key-' || n, '', 201, '{}', now() + n * interval '1 s' FROM generate_series(1, 20000) n
    """,
    """
    INSERT INTO attempts (
        run_id, attempt, state, reason, held_by, lease_token, assigned_at, finished_at, settled_at, deadline)
    SELECT id, 1, state, CASE WHEN state = 'FAILED' THEN 'op_error' END,
        CASE WHEN state <> 'PENDING' THEN 'w' || 1 + abs(hashtext(id::text)) % 50 END,
        CASE WHEN state <> 'PENDING' THEN 'lease' END,
        CASE WHEN state <> 'PENDING' THEN created_at END,
        CASE WHEN state IN ('COMPLETED', 'FAILED') THEN created_at END,
        CASE WHEN state IN ('COMPLETED', 'FAILED') THEN created_at END, created_at + interval '1 h'
    FROM runs
    """,
    """
    INSERT INTO events (run_id, n, attempt, type, t, msg)
    SELECT id, n, 1, 'INFO', created_at, '"hello"' FROM runs, generate_series(0, 3) n
    """,
    "INSERT INTO logs (run_id, attempt, size) SELECT id, 1, 300 FROM runs",
    "INSERT INTO log_discards (run_id, due) SELECT id, now() FROM runs",
    """
    INSERT INTO log_chunks (run_id, attempt, start, size, name)
    SELECT id, 1, 100 * n, 100, 'chunk' FROM runs, generate_series(0, 2) n
    """,
    """
    INSERT INTO keys (id, name, hash, hint, scopes, created_at, created_by)
    SELECT gen_random_uuid(), 'ci', sha256(n::text::bytea), 'abcd', '{submit}', now(), 'me'
    FROM generate_series(1, 5000) n
    """,
    "INSERT INTO outbox (run_id, n) SELECT run_id, n FROM events ORDER BY t LIMIT 20000",
    "ANALYZE",
)


class Explaining(psycopg.AsyncCursor[Any]):
    """Explains each statement before it runs it, as prepared without a look at its values."""

    plans: list[dict[str, Any]]

    async def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
        done = await super().execute(query, params, **how)
        sent = self._query
        assert sent is not None
        types = ", ".join(f"{oid}::regtype::text" for oid in sent.types)
        cursor = psycopg.AsyncCursor(self.connection)
        async with self.connection.transaction(force_rollback=True):
            names: tuple[str, ...] = ()
            if types:
                await cursor.execute(f"SELECT {types}".encode())
                names = await cursor.fetchone() or ()
            declared = f" ({', '.join('unknown' if name == '-' else name for name in names)})" if names else ""
            await cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            await cursor.execute(f"PREPARE asked{declared} AS ".encode() + sent.query)
            values = f" ({', '.join(['NULL'] * len(names))})" if names else ""
            await cursor.execute(f"EXPLAIN (FORMAT JSON) EXECUTE asked{values}".encode())
            ((plan,),) = await cursor.fetchall()
            self.plans.append(json.loads(bytes(plan))[0]["Plan"])
            await cursor.execute("DEALLOCATE asked")
        return done


@pytest.fixture(scope="session")
async def full_url(postgres: str) -> str:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE full_one TEMPLATE template_gyoza")
    url = make_conninfo(postgres, dbname="full_one")
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement.encode())
    return url


@pytest.fixture
async def explained(full_url: str) -> AsyncIterator[Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[str]]]:
    """Asks something of the full database and gives the plans; whatever it changes is undone."""
    async with Database(full_url) as database, database.connection() as connection:
        Explaining.plans = []

        async def explain(asking: Callable[[Connection], Awaitable[Any]]) -> str:
            async with connection.transaction(force_rollback=True):
                connection.cursor_factory = Explaining
                await asking(connection)
            connection.cursor_factory = psycopg.AsyncCursor
            return "\n".join(json.dumps(plan, indent=1) for plan in Explaining.plans)

        yield explain


def scanned() -> list[str]:
    """The tables that were read from end to end."""
    return [
        node["Relation Name"] for plan in Explaining.plans for node in nodes(plan) if node["Node Type"] == "Seq Scan"
    ]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def lives(connection: Connection) -> None:
    found = await runs.lock(connection, [A_RUN], [1])
    await runs.write(connection, found.values(), NOW)


async def extended(connection: Connection) -> None:
    await logs.lock(connection, A_RUN, 1)
    chunks = [logs.Chunk(200, 150, "joined"), logs.Chunk(350, 10, "new")]
    await logs.extend(connection, A_RUN, 1, chunks, size=360, cut=False)


OF_DEFINITION = NewRun(
    new_id(NOW), NOW, 5, {}, Constraints(), ("docker",), op_definition="op-1", revision=1, tags=("tag-1",)
)
CURSOR = Place(NOW, A_RUN)
ASKED: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "first page": lambda c: pages.newest_first(c, Filters(), 11),
    "deep page": lambda c: pages.newest_first(c, Filters(), 11, after=CURSOR),
    "page before": lambda c: pages.newest_first(c, Filters(), 11, before=CURSOR),
    "page of a state": lambda c: pages.newest_first(c, Filters(state=OpRunState.FAILED), 11),
    "deep page of a state": lambda c: pages.newest_first(c, Filters(state=OpRunState.FAILED), 11, after=CURSOR),
    "page of a definition": lambda c: pages.newest_first(c, Filters(op_definition="op-1"), 11),
    "deep page of a definition": lambda c: pages.newest_first(c, Filters(op_definition="op-1"), 11, after=CURSOR),
    "page of an image": lambda c: pages.newest_first(c, Filters(image="image-1"), 11, after=CURSOR),
    "page of a state of a definition": lambda c: pages.newest_first(
        c, Filters(state=OpRunState.FAILED, op_definition="op-2"), 11
    ),
    "page of a tag": lambda c: pages.newest_first(c, Filters(tags=("tag-1",)), 11, after=CURSOR),
    "page of two tags": lambda c: pages.newest_first(c, Filters(tags=("tag-1", "odd-1")), 11, before=CURSOR),
    "page of a reason": lambda c: pages.newest_first(c, Filters(reason="op_error"), 11, after=CURSOR),
    "page of a worker": lambda c: pages.newest_first(c, Filters(worker_id="w1"), 11, after=CURSOR),
    "page of a submitter": lambda c: pages.newest_first(c, Filters(submitted_by="user-1"), 11, after=CURSOR),
    "page of a time": lambda c: pages.newest_first(c, Filters(created_gte=NOW, created_lt=NOW), 101),
    "page after a time": lambda c: pages.newest_first(c, Filters(created_gt=NOW), 101, after=CURSOR),
    "one run": lambda c: pages.get(c, A_RUN),
    "where a run stands": lambda c: pages.place_of(c, A_RUN),
    "page of events": lambda c: events.page(c, A_RUN, after=1, attempt=None, limit=1001),
    "page of events of an attempt": lambda c: events.page(c, A_RUN, after=1, attempt=1, limit=1001),
    "newest events": lambda c: events.newest(c, A_RUN, 1),
    "attempts of a run": lambda c: attempts.of_run(c, A_RUN),
    "what a worker holds": lambda c: attempts.held_by(c, "w1"),
    "what is beyond its deadline": lambda c: attempts.overdue(c, NOW, 1000),
    "what joins the queue": lambda c: queue.admit(c, NOW),
    "what may be deleted": lambda c: retention.lock_due(c, NOW, NOW, 100, 10_000),
    "the deleting of runs": lambda c: retention.delete(c, [A_RUN]),
    "taking an idempotency key": lambda c: idempotency.take(c, "user-1", "key-1", b"", NOW, NOW),
    "an answer that was given": lambda c: idempotency.stored(c, "user-1", "key-1"),
    "answers that expire": lambda c: idempotency.expire(c, NOW, 1000),
    "runs that a filter counts": lambda c: pages.count(c, Filters(op_definition="op-1"), 1001),
    "ids of runs": lambda c: pages.ids(c, Filters(reason="op_error"), 1001),
    "what all workers hold": workers.taken,
    "rooms": lambda c: workers.rooms(c, NOW),
    "for how long a worker is waited for": lambda c: attempts.patience(c, "w1"),
    "whether any worker is in doubt": lambda c: endings.is_doubtful(c, NOW),
    "how the newest attempts ended": lambda c: endings.tallies(c, NOW),
    "how canaries ended": lambda c: endings.canaries(c, NOW),
    "a run, locked": lives,
    "a log": lambda c: logs.look(c, A_RUN, 1),
    "the current log": lambda c: logs.look(c, A_RUN, None),
    "chunks of a log": lambda c: logs.chunks(c, A_RUN, 1, 150, 10),
    "a log that is added to": extended,
    "logs that are forgotten": lambda c: logs.forget(c, [A_RUN], NOW),
    "logs to discard": lambda c: logs.to_discard(c, NOW, 100),
    "logs that are discarded": lambda c: logs.discarded(c, [A_RUN], [A_RUN], NOW),
    "a key, and a note of its use": lambda c: keys.find(c, b"h" * 32, NOW),
    "whether a worker's runs name a file": lambda c: files.is_named(c, A_RUN, "w1"),
    "the newest position": feed.newest,
    "page of the feed": lambda c: feed.positions(c, 5000, 200),
    "entries of the feed": lambda c: feed.entries(c, [feed.Position(n, A_RUN, n) for n in range(4)]),
    "page of a run's entries": lambda c: feed.of_run(c, A_RUN, 1, 200),
    "outline of a run": lambda c: pages.outline(c, A_RUN),
    "the latest of a definition": lambda c: definitions.latest(c, "op-1"),
    "the latest of a version": lambda c: definitions.latest(c, "many-1", "1"),
    "every revision of a definition": lambda c: definitions.history(c, "many-1"),
    "the newest of each definition": definitions.newest_of_each,
    "a new revision": lambda c: definitions.deploy(c, "many-1", "1", "new", "{}", NOW),
    "a known revision": lambda c: definitions.deploy(c, "many-1", "1", "1-2", "{}", NOW),
    "disabling a definition": lambda c: definitions.set_disabled(c, "many-1", NOW),
    "deleting a definition": lambda c: definitions.delete(c, "many-1", NOW),
    "a new run of a definition": lambda c: new_runs.insert(c, [OF_DEFINITION]),
    "a run to ask for once more": lambda c: new_runs.read(c, A_RUN),
}


@pytest.mark.parametrize("asking", ASKED.values(), ids=ASKED.keys())
async def test_it_is_found_by_an_index(asking: Any, explained: Any):
    plans = await explained(asking)
    assert Explaining.plans
    assert not set(scanned()) & set(FULL), plans


async def test_what_has_no_index_would_be_noticed(explained: Any):
    await explained(lambda c: c.execute("SELECT id FROM runs WHERE priority = %s", [7]))
    assert scanned() == ["runs"]


async def test_the_queue_is_read_by_its_index_and_no_further_than_its_first_few(explained: Any):
    plans = await explained(lambda c: queue.window(c))
    assert not set(scanned()) & set(FULL), plans
    every = [node for plan in Explaining.plans for node in nodes(plan)]
    assert {node.get("Index Name") for node in every if node.get("Relation Name") == "runs"} == {"runs_queue"}, plans
    of_a_shape = [kinds for node in every if "CTE Scan" not in (kinds := {each["Node Type"] for each in nodes(node)})]
    sorted_by = {kind for kinds in of_a_shape for kind in kinds if "Sort" in kind}
    assert not sorted_by, f"a shape's runs come in the order of the index: {plans}"


def used() -> set[str | None]:
    """The indexes that were used."""
    return {node.get("Index Name") for plan in Explaining.plans for node in nodes(plan)} - {None}


async def test_runs_that_are_not_due_are_found_by_their_time_and_no_others_are_looked_at(explained: Any):
    plans = await explained(lambda c: queue.admit(c, NOW))
    assert used() == {"runs_delayed", "runs_pkey"}, plans


async def test_what_is_beyond_its_deadline_is_found_by_it_the_oldest_first(explained: Any):
    plans = await explained(lambda c: attempts.overdue(c, NOW, 1000))
    assert used() == {"attempts_due"}, plans
    assert "Sort" not in {node["Node Type"] for plan in Explaining.plans for node in nodes(plan)}, plans


@pytest.mark.parametrize(
    "name", ["whether any worker is in doubt", "how the newest attempts ended", "how canaries ended"]
)
async def test_the_newest_endings_are_read_in_the_order_of_their_index(name: str, explained: Any):
    plans = await explained(ASKED[name])
    assert "attempts_ended" in used(), plans
    limits = [node for plan in Explaining.plans for node in nodes(plan) if node["Node Type"] == "Limit"]
    assert limits, plans
    assert "Sort" not in {each["Node Type"] for limit in limits for each in nodes(limit)}, plans


async def test_runs_that_may_go_are_found_by_their_own_time_and_by_their_end_and_never_sorted(explained: Any):
    plans = await explained(lambda c: retention.lock_due(c, NOW, NOW, 100, 10_000))
    assert {"runs_leaving", "runs_ended"} < used(), plans
    assert "Sort" not in {node["Node Type"] for plan in Explaining.plans for node in nodes(plan)}, plans


async def test_the_list_of_definitions_reads_their_newest_revisions_alone(explained: Any):
    plans = await explained(definitions.newest_of_each)
    assert "revisions_newest" in used(), plans


ALL = {
    "state": OpRunState.FAILED,
    "op_definition": "op-2",
    "image": "image-2",
    "tags": ("tag-2",),
    "reason": "op_error",
    "worker_id": "w3",
    "submitted_by": "user-2",
    "created_gte": NOW,
}
SOME = [dict(some) for size in range(len(ALL) + 1) for some in itertools.combinations(ALL.items(), size)]


@pytest.mark.parametrize("some", SOME, ids=lambda some: " ".join(some) or "none")
async def test_under_any_filters_a_page_is_found_by_an_index(some: Any, explained: Any):
    """Several filters at once may meet in bitmaps, of which the few that are left are sorted; one alone never is."""
    plans = await explained(lambda c: pages.newest_first(c, Filters(**some), 11, after=CURSOR))
    assert not set(scanned()) & set(FULL), plans
    kinds = {node["Node Type"] for plan in Explaining.plans for node in nodes(plan)}
    assert len(some) > 1 or "Sort" not in kinds, plans


@pytest.mark.parametrize("name", [name for name in ASKED if "page" in name])
async def test_a_page_is_read_in_the_order_of_an_index_and_never_sorted(name: str, explained: Any):
    plans = await explained(ASKED[name])
    assert "Sort" not in {node["Node Type"] for plan in Explaining.plans for node in nodes(plan)}, plans


async def test_what_led_to_a_note_s_state_is_found_however_many_notes_lie_between(explained: Any):
    plans = await explained(ASKED["page of a run's entries"])
    used = {node.get("Index Name") for plan in Explaining.plans for node in nodes(plan)}
    assert "events_moving" in used, plans


async def test_what_is_to_be_published_is_found_by_an_index_however_much_waits(explained: Any):
    plans = await explained(lambda c: outbox.publish(c, 1000))
    assert "outbox" not in scanned(), plans
