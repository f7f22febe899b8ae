"""Where waiting runs go: a pure function from what waits and what is free to a plan.

Runs are taken in the order of the queue. Each goes to the fullest worker on which it still fits, so that big holes
stay whole for big runs; a worker on which this run was lost before is taken only where there is no other. A worker on
trial is given first what can be tried again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gyoza.models.resources import Constraints, Free


@dataclass(frozen=True)
class Waiting:
    """A run in the queue. `engines`: which kinds of worker can run it; `avoid`: workers that lost it before.

    `spare`: whatever goes wrong, it is tried again.
    """

    run_id: str
    attempt: int
    queue_at: datetime
    constraints: Constraints
    engines: frozenset[str]
    avoid: frozenset[str] = frozenset()
    spare: bool = True


@dataclass(frozen=True)
class WorkerRoom:
    """What a live worker that takes work can still take. `on_trial`: no more than one run, to see how it fares."""

    worker_id: str
    free: Free
    engines: frozenset[str]
    on_trial: bool = False


@dataclass(frozen=True)
class Placement:
    run_id: str
    attempt: int
    worker_id: str
    gpu_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Every run of the window is in exactly one of the two."""

    placements: Sequence[Placement]
    waiting: Mapping[str, str]
    """Run id -> one sentence: why it waits."""


def place(pending: Iterable[Waiting], rooms: Iterable[WorkerRoom], now: datetime) -> Plan:
    """Places what fits; explains what does not. The order in which workers are given does not matter."""
    left = {room.worker_id: room for room in rooms}
    placements: list[Placement] = []
    waiting: dict[str, str] = {}
    for run in sorted(pending, key=lambda run: (run.queue_at, run.run_id)):
        chosen = _fullest(run, left.values())
        if chosen is None:
            waiting[run.run_id] = _why(run, left.values())
            continue
        placement = _placed(run, chosen)
        placements.append(placement)
        left[chosen.worker_id] = _without(chosen, run, placement)
    return Plan(placements, waiting)


def _fullest(run: Waiting, rooms: Iterable[WorkerRoom]) -> WorkerRoom | None:
    wanted = run.constraints.counted
    fitting = [room for room in rooms if run.engines & room.engines and room.free.fits(wanted)]
    return min(fitting, key=lambda room: _preference(run, room), default=None)


def _preference(run: Waiting, room: WorkerRoom) -> tuple[object, ...]:
    free = room.free
    vram_left = sum(free.vram_mb.values())
    trial = room.on_trial * (-1 if run.spare else 1)
    return (room.worker_id in run.avoid, trial, vram_left, free.cpu_m, free.ram_mb, free.slots, room.worker_id)


def _placed(run: Waiting, room: WorkerRoom) -> Placement:
    gpu = room.free.gpu_for(run.constraints.counted)
    return Placement(run.run_id, run.attempt, room.worker_id, () if gpu is None else (gpu,))


def _without(room: WorkerRoom, run: Waiting, placement: Placement) -> WorkerRoom:
    return replace(room, free=room.free.minus(run.constraints.counted, placement.gpu_ids))


def _why(run: Waiting, rooms: Iterable[WorkerRoom]) -> str:
    rooms = list(rooms)
    able = [room for room in rooms if run.engines & room.engines]
    if not rooms:
        return "no worker is taking work"
    if not able:
        return f"no worker has the engine it needs ({' or '.join(sorted(run.engines))})"
    short = Counter(name for room in able for name in room.free.lacks(run.constraints.counted))
    lacks = ", ".join(f"{name} on {count}" for name, count in sorted(short.items()))
    return f"no room: of {len(able)} workers too little {lacks}"
