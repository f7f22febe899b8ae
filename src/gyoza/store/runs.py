"""The one place where a run changes: lock it, let policy fold its `Life`, write the outcome once.

A batch is one JSON parameter that PostgreSQL reads as rows, so that the price of many is the price of one.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from gyoza.models.run import time_to_wire
from gyoza.policy.life import Life, Try
from gyoza.policy.retry import Budgets
from gyoza.store import attempts, events
from gyoza.store.columns import retry_policy, rows, timeouts
from gyoza.store.database import Connection

MOST_OF_A_NAME = 600
"""Characters of a worker's name by which lists can find a run: an index has a bound. Events may say any name."""


async def lock(connection: Connection, run_ids: Iterable[str], named: Iterable[int] = ()) -> dict[str, Life]:
    """The lives of these runs, locked in the order of their ids until the transaction ends; unknown ids are absent.

    `named` are the numbers of attempts that they must carry, even if these are settled. The attempts are read after the
    lock is held: read with it, they would be those of before the wait.
    """
    wanted = sorted(set(run_ids))
    if not wanted:
        return {}
    cursor = await connection.execute(
        """
        SELECT id, current_attempt, priority, queue_at, max_attempts, retry, timeouts, run_at, due, user_failures,
            infra_losses, next_event, updated_at
        FROM runs WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE
        """,
        [wanted],
    )
    found = await cursor.fetchall()
    tries = await attempts.tries(connection, wanted, sorted(named))
    return {row[0]: _life(row, tries[row[0]]) for row in found}


async def write(connection: Connection, lives: Iterable[Life], now: datetime) -> None:
    """What became of locked lives. Those that did not change are passed over."""
    changed = [life for life in lives if life.events or life.touched]
    if not changed:
        return
    cursor = await connection.execute(
        """
        UPDATE runs SET
            state = new.state, current_attempt = new.current_attempt, queue_at = new.queue_at, run_at = new.run_at,
            due = new.due, reason = new.reason, worker_id = new.worker_id, ended_at = new.ended_at,
            delete_at = new.ended_at + make_interval(secs => runs.delete_after_s),
            user_failures = new.user_failures, infra_losses = new.infra_losses,
            next_event = new.next_event, updated_at = %s
        FROM json_to_recordset(%s::json) AS new (
            id uuid, state text, current_attempt integer, queue_at timestamptz, run_at timestamptz, due boolean,
            reason text, worker_id text, ended_at timestamptz, user_failures integer, infra_losses integer,
            next_event integer, was integer)
        WHERE runs.id = new.id AND runs.next_event = new.was
        """,
        [now, rows(_run_row(life) for life in changed)],
    )
    if cursor.rowcount != len(changed):
        raise AssertionError("a run changed although it was locked")
    await attempts.write(connection, ((life.run_id, life.tries[n]) for life in changed for n in sorted(life.touched)))
    await events.insert(connection, ((life.run_id, event) for life in changed for event in life.events))


async def reprioritise(connection: Connection, run_id: str, priority: int, queue_at: datetime, now: datetime) -> None:
    await connection.execute(
        "UPDATE runs SET priority = %s, queue_at = %s, updated_at = greatest(updated_at, %s) WHERE id = %s",
        [priority, queue_at, now, run_id],
    )


async def pin(connection: Connection, run_id: str, pinned: bool, now: datetime) -> None:
    await connection.execute(
        "UPDATE runs SET pinned = %s, updated_at = greatest(updated_at, %s) WHERE id = %s", [pinned, now, run_id]
    )


def _life(row: Sequence[Any], tries: Mapping[int, Try]) -> Life:
    run_id, current, priority, queue_at, max_attempts, retry, limits, run_at, due = row[:9]
    user_failures, infra_losses, next_event, changed_at = row[9:]
    return Life(
        run_id=run_id,
        current=current,
        tries=tries,
        priority=priority,
        queue_at=queue_at,
        retry_policy=retry_policy(max_attempts, retry),
        timeouts=timeouts(limits),
        run_at=run_at,
        due=due,
        budgets=Budgets(user_failures, infra_losses),
        next_event=next_event,
        changed_at=changed_at,
    )


def _run_row(life: Life) -> dict[str, Any]:
    now_on = life.now_on
    return {
        "id": life.run_id,
        "state": life.state,
        "current_attempt": life.current,
        "queue_at": time_to_wire(life.queue_at),
        "run_at": time_to_wire(life.run_at),
        "due": life.due,
        "reason": now_on.reason,
        "worker_id": _findable(now_on.summary.worker_id or now_on.held_by),
        "ended_at": time_to_wire(now_on.finished_at),
        "user_failures": life.budgets.user_failures,
        "infra_losses": life.budgets.infra_losses,
        "next_event": life.next_event,
        "was": life.next_event - len(life.events),
    }


def _findable(worker_id: str | None) -> str | None:
    return worker_id if worker_id is None or len(worker_id) <= MOST_OF_A_NAME else None
