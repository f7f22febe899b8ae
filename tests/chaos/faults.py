"""What goes wrong, and when: a table of kinds, and from a seed a list of faults, to be printed and played again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

GAP_S = 1.2
"""Between the beginnings of two faults, on the average."""

LOST = frozenset({"worker_lost", "released", "declined"})
BROKEN_OFF = frozenset({"op_error", "start_failed"})


@dataclass(frozen=True)
class Kind:
    """`of`: what it befalls. `lasts_s`: between these. `explains`: the reasons of attempts that it may bring about."""

    of: str
    share: int
    lasts_s: tuple[float, float]
    explains: frozenset[str] = LOST


KINDS: Mapping[str, Kind] = {
    "kill worker": Kind("worker", 5, (0.2, 5)),
    "freeze worker": Kind("worker", 4, (0.5, 7), LOST | {"start_timeout"}),
    "drain worker": Kind("worker", 1, (1, 4), frozenset({"drained"})),
    "kill server": Kind("server", 3, (0.2, 4)),
    "freeze server": Kind("server", 3, (0.5, 7)),
    "cut the wire": Kind("wire", 4, (0.1, 6)),
    "hold up the wire": Kind("wire", 3, (0.5, 6)),
    "slow the wire": Kind("wire", 2, (2, 8)),
    "lose answers": Kind("wire", 3, (0.5, 4)),
    "drop connections": Kind("database", 3, (0, 0)),
    "kill a container": Kind("docker", 2, (0, 0), BROKEN_OFF),
    "remove a container": Kind("docker", 2, (0, 0), BROKEN_OFF),
    "restart Docker": Kind("dockerd", 1, (0, 0), BROKEN_OFF | {"image_pull_failed"}),
    "fill the disk": Kind("disk", 3, (1, 6), frozenset({"disk_full", "op_error", "start_failed"})),
    "skew the clock": Kind("clock", 2, (1, 8)),
}


@dataclass(frozen=True)
class Fault:
    at_s: float
    kind: str
    target: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:7.1f} s  {self.kind:<18} {self.target:<8}" + (f" for {self.for_s:.1f} s" * bool(self.for_s))


def schedule(seed: int, length_s: float, targets: Mapping[str, Sequence[str]]) -> list[Fault]:
    """`targets`: what there is to befall, by `Kind.of`. Nothing is befallen by a second fault of its sort meanwhile."""
    chance, faults = Random(seed), list[Fault]()
    kinds = [name for name, kind in KINDS.items() if targets.get(kind.of)]
    weights = list(accumulate(KINDS[name].share for name in kinds))
    busy_until: dict[str, float] = {}
    at_s = chance.expovariate(1 / GAP_S)
    while at_s < length_s and kinds:
        name = chance.choices(kinds, cum_weights=weights)[0]
        kind = KINDS[name]
        target, for_s = chance.choice(targets[kind.of]), round(chance.uniform(*kind.lasts_s), 1)
        place = f"{kind.of} {target}"
        if busy_until.get(place, 0) <= at_s:
            faults.append(Fault(round(at_s, 1), name, target, for_s))
            busy_until[place] = at_s + for_s + 1
        at_s += chance.expovariate(1 / GAP_S)
    return faults


def explained_by(faults: Sequence[Fault]) -> frozenset[str]:
    """Every reason that these faults may give an attempt."""
    return frozenset[str]().union(*(KINDS[fault.kind].explains for fault in faults))
