"""Until when a run may stay in a state: one deadline at a time, which the server keeps watch over."""

from datetime import datetime, timedelta

from gyoza.models.definition import Timeouts
from gyoza.models.lifecycle import OpRunState

START_S = 60.0
"""Default of `timeouts.start_s`: how long an assignment may stay unacknowledged."""
PATIENCE_S = 60.0
"""How much longer than `run_s` the server waits where a worker keeps the time: it stops the program more gently."""


def deadline(state: OpRunState, timeouts: Timeouts, since: datetime, *, held: bool = False) -> datetime | None:
    """None: no limit. `held`: by a worker, which ends what runs too long by itself."""
    limits = {
        OpRunState.PENDING: timeouts.queue_s,
        OpRunState.ASSIGNED: START_S if timeouts.start_s is None else timeouts.start_s,
        OpRunState.RUNNING: timeouts.run_s and timeouts.run_s + PATIENCE_S * held,
    }
    limit_s = limits.get(state)
    return None if limit_s is None else since + timedelta(seconds=limit_s)
