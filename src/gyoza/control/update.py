"""PATCH of a run: state, outputs, priority and whether it is pinned, each optional, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gyoza.control.change import Change, change_all
from gyoza.models.errors import NotAllowedNow, Refusal
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.policy.life import PRIORITY_POINT, Happening, Life, happen, queue_at
from gyoza.store import bell, runs
from gyoza.store.database import Connection, Database

_EVENTS: Mapping[OpRunState, Happening] = {
    OpRunState.PENDING: Happening(EventType.RETRIED, "Set by update", {"force": True}),
    OpRunState.RUNNING: Happening(EventType.STARTED, "Set by update"),
    OpRunState.COMPLETED: Happening(EventType.COMPLETED, "Set by update"),
    OpRunState.FAILED: Happening(EventType.FAILED, "Set by update"),
    OpRunState.CANCELLED: Happening(EventType.CANCELLED, "Set by update"),
}
"""The event that leads to each state that may be set; no automatic retry follows."""


@dataclass(frozen=True)
class Update:
    """`outputs` is JSON as it was received. What is `pinned` is kept, however old it is."""

    state: str | None = None
    outputs: Any = None
    priority: int | None = None
    pinned: bool | None = None

    def __call__(self, life: Life, now: datetime) -> Life:
        life = _set_state(life, self.state, now) if self.state is not None else life
        return life.with_try(replace(life.now_on, outputs=self.outputs)) if self.outputs is not None else life


async def update(database: Database, run_id: str, wanted: Update, now: datetime) -> None:
    async def work(connection: Connection) -> None:
        (outcome,), _ = await change_all(connection, [Change(run_id, wanted)], now)
        if isinstance(outcome, Refusal):
            raise outcome
        if wanted.priority is not None:
            entered = outcome.queue_at + outcome.priority * PRIORITY_POINT
            await runs.reprioritise(connection, run_id, wanted.priority, queue_at(entered, wanted.priority), now)
            await bell.ring(connection, [bell.QUEUE])
        if wanted.pinned is not None:
            await runs.pin(connection, run_id, wanted.pinned, now)

    await database.transact(work)


def _set_state(life: Life, wanted: str, now: datetime) -> Life:
    state = next((state for state in _EVENTS if state == wanted), None)
    if state is None:
        allowed = ", ".join(_EVENTS)
        raise NotAllowedNow(f"State '{wanted}' cannot be set by an update: allowed are {allowed}")
    return life if state is life.state else happen(life, _EVENTS[state], now)
