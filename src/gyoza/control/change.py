"""Changing runs: lock them, fold every change in the order of its arrival, write once, wake those it concerns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gyoza.models.errors import Refusal, RunNotFound
from gyoza.models.lifecycle import OpRunState
from gyoza.models.run import is_run_id
from gyoza.policy.life import Life
from gyoza.store import bell, runs
from gyoza.store.database import Connection, Database


@dataclass(frozen=True)
class Change:
    """What is wanted of one run. `judge` returns the life that follows, or raises a Refusal.

    `attempt` is the one that it is about, where that may be an earlier one.
    """

    run_id: str
    judge: Callable[[Life, datetime], Life]
    attempt: int | None = None


Outcomes = list[Life | Refusal]


async def change_all(
    connection: Connection, changes: Sequence[Change], now: datetime
) -> tuple[Outcomes, Mapping[str, Life]]:
    """Within a transaction: for each change the life after it, or why it was refused; one never fails another.

    And, by its id, how each of these runs stands after all of them. What had to wait for a lock is never dated before
    what it waited for.
    """
    run_ids = {change.run_id for change in changes if is_run_id(change.run_id)}
    before = await runs.lock(connection, run_ids, {change.attempt for change in changes if change.attempt is not None})
    now = max([now, *(life.changed_at for life in before.values())])
    lives = dict(before)
    outcomes: Outcomes = []
    for change in changes:
        try:
            if change.run_id not in lives:
                raise RunNotFound(change.run_id)
            lives[change.run_id] = change.judge(lives[change.run_id], now)
            outcomes.append(lives[change.run_id])
        except Refusal as refusal:
            outcomes.append(refusal)
    await runs.write(connection, lives.values(), now)
    await bell.ring(connection, {topic for run_id, life in lives.items() for topic in wakes(before[run_id], life)})
    return outcomes, lives


async def change_one(database: Database, change: Change, now: datetime) -> Life:
    """The life after the change; raises its Refusal."""

    async def work(connection: Connection) -> Life | Refusal:
        (outcome,), _ = await change_all(connection, [change], now)
        return outcome

    outcome = await database.transact(work)
    if isinstance(outcome, Refusal):
        raise outcome
    return outcome


def wakes(before: Life, after: Life) -> set[str]:
    """Whom a change concerns: the queue when a run or room came into it, a worker when it has to start or stop.

    And who publishes every event, and those who follow a log, when nothing comes into it any more.
    """
    topics = {bell.OUTBOX} if after.events else set[str]()
    if after.state is OpRunState.PENDING and after.current != before.current:
        topics.add(bell.QUEUE)
    for attempt in after.touched:
        was, now_is = before.tries.get(attempt), after.tries[attempt]
        if now_is.settled_at is not None and (was is None or was.settled_at is None):
            topics.add(bell.log_of(after.run_id))
        if now_is.held_by is None:
            continue
        if now_is.settled_at is not None:
            topics.add(bell.QUEUE)
        elif was is None or was.state is not now_is.state:
            topics.add(now_is.held_by)
    return topics
