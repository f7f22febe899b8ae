"""Whether a worker lives, from when it was last seen, and when what it held is given up."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Liveness(StrEnum):
    ALIVE = "alive"
    LATE = "late"
    LOST = "lost"


@dataclass(frozen=True)
class Pace:
    """How often a worker is heard (`heartbeat_s`) and after how much silence its lease is over (`lease_s`)."""

    heartbeat_s: float = 5
    lease_s: float = 20


def liveness(seen_at: datetime, now: datetime, pace: Pace) -> Liveness:
    silence = now - seen_at
    if silence > timedelta(seconds=pace.lease_s):
        return Liveness.LOST
    return Liveness.LATE if silence > timedelta(seconds=2 * pace.heartbeat_s) else Liveness.ALIVE


def lost_at(seen_at: datetime, pace: Pace, patience_s: float | None = None) -> datetime:
    """When an attempt of a worker that was seen last at that time is given up. Patience never shortens a lease."""
    return seen_at + timedelta(seconds=max(pace.lease_s, patience_s or 0))
