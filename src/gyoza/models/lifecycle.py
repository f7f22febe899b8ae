"""The life of a run, as one table.

Everything that depends on what can happen to a run is derived from `TRANSITIONS`: the guard in front of every write,
the CHECK constraints of the database, the diagram in the docs and the exhaustive tests. An automatic retry is no
extra row: it is FAILED, which ends an attempt, followed by RETRIED, which opens the next.
"""

from collections.abc import Mapping
from enum import StrEnum

from gyoza.models.errors import OpRunLockedException, TransitionRefused


class OpRunState(StrEnum):
    PENDING = "PENDING"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


class EventType(StrEnum):
    ASSIGNED = "ASSIGNED"
    STARTED = "STARTED"
    INFO = "INFO"
    PROGRESS = "PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    ERROR = "ERROR"
    RETRIED = "RETRIED"


S, E = OpRunState, EventType

TERMINAL = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED})

TRANSITIONS: Mapping[tuple[OpRunState, EventType], OpRunState] = {
    (S.PENDING, E.ASSIGNED): S.ASSIGNED,
    (S.PENDING, E.STARTED): S.RUNNING,
    (S.ASSIGNED, E.STARTED): S.RUNNING,
    (S.RUNNING, E.PROGRESS): S.RUNNING,
    (S.RUNNING, E.COMPLETED): S.COMPLETED,
    (S.PENDING, E.FAILED): S.FAILED,
    (S.ASSIGNED, E.FAILED): S.FAILED,
    (S.RUNNING, E.FAILED): S.FAILED,
    (S.PENDING, E.CANCELLED): S.CANCELLED,
    (S.ASSIGNED, E.CANCELLED): S.CANCELLED,
    (S.RUNNING, E.CANCELLED): S.CANCELLED,
    (S.FAILED, E.RETRIED): S.PENDING,
    (S.CANCELLED, E.RETRIED): S.PENDING,
    **{(state, note): state for state in S if state not in TERMINAL for note in (E.INFO, E.ERROR)},
}

NOTES = frozenset({E.INFO, E.ERROR})
"""What changes no state."""

LEADS_TO: Mapping[EventType, OpRunState] = {
    event: state for (_, event), state in TRANSITIONS.items() if event not in NOTES
}
"""The state after each event that is no note: the same one, whatever the state was before."""

SERVER_ALONE = frozenset({(S.PENDING, E.ASSIGNED), (S.PENDING, E.FAILED)})
"""What nobody but the server may write: it hands runs out, and it ends those that waited too long."""

HOLDER_ALONE = frozenset({E.STARTED, E.PROGRESS, E.COMPLETED, E.FAILED})
"""What only the holder of the lease may write while the current attempt has one."""


def next_state(state: OpRunState, event: EventType, *, by_server: bool = False) -> OpRunState:
    """The state after `event`; raises OpRunLockedException or TransitionRefused, whose texts say why."""
    after = TRANSITIONS.get((state, event))
    if after is not None and (by_server or (state, event) not in SERVER_ALONE):
        return after
    if state.is_terminal:
        raise OpRunLockedException(f"The run is {state} and locked: {event} is refused{_way_out(state)}")
    raise TransitionRefused(f"{event} is refused while the run is {state}: allowed now {_allowed(state)}")


def _way_out(state: OpRunState) -> str:
    if state is S.COMPLETED:
        return ". To do the work again, submit it as a new run"
    return ". To do the work again, retry the run"


def _allowed(state: OpRunState) -> str:
    return ", ".join(sorted(event for (at, event) in TRANSITIONS if at is state and (at, event) not in SERVER_ALONE))
