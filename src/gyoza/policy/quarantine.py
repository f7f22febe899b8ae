"""Whether a worker is to be trusted with runs: how its newest attempts ended, beside those of all other workers.

That attempts break before they run speaks against a worker wherever others do better. That they fail may be the op's
own fault: it counts only as far as others did the same work better, so an op that always fails convicts nobody, and a
worker on which everything fails is found out. What is compared is how likely a worker like the others would do so
badly by chance; a few endings, here or elsewhere, are never enough.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import comb

from gyoza.models.reasons import RULES, Budget, Reason


class Cause(StrEnum):
    """BROKEN: attempts do not get so far as to run. FAILING: they run, and fail more than elsewhere."""

    BROKEN = "broken"
    FAILING = "failing"


NEWEST = 20
"""Of each worker so many endings count, its newest ones,"""
WITHIN = timedelta(minutes=15)
"""and none that is older."""
LEAST = 5
"""Fewer failures never convict."""
CHANCE = 1e-7
"""As unlikely as this must it be that a worker like the others does so badly. Less than that all of NEWEST fail where
nothing is known of others: without a comparison nobody is convicted."""
SHORTEST = timedelta(seconds=30)
LONGEST = timedelta(minutes=15)
"""The pause before the first canary, and before the last of many: each that fails doubles it."""
RUNS = timedelta(minutes=5)
"""A canary that has run for so long shows that attempts can be run."""

BROKEN = frozenset(
    reason for reason, rule in RULES.items() if rule.spends is Budget.INFRA and reason is not Reason.WORKER_LOST
)
FAILED = BROKEN | {reason for reason, rule in RULES.items() if rule.spends is Budget.USER}
"""Reasons that count. A worker that falls silent is evicted, which is one event however many runs it held."""
TELLING = FAILED | {Reason.WORKER_LOST}
"""Reasons that say something of a canary."""

_LIKELY = 0.5
"""How often attempts fail of which nothing is known,"""
_WEIGHT = 2
"""and as many attempts is that worth beside what is known."""


@dataclass(frozen=True)
class Quarantine:
    """`until`: no canary before. `canaries`: how many have failed."""

    since: datetime
    cause: Cause
    reason: str
    until: datetime
    canaries: int = 0


@dataclass(frozen=True)
class Tally:
    """How a worker's newest attempts at one work (an op, or an image) ended. What is `broken` has `failed`, too."""

    worker_id: str
    work: str
    ended: int
    broken: int = 0
    failed: int = 0

    def bad(self, cause: Cause) -> int:
        return self.broken if cause is Cause.BROKEN else self.failed


@dataclass(frozen=True)
class Verdict:
    cause: Cause
    reason: str


def convict(tallies: Iterable[Tally], crew: Mapping[str, Collection[str]]) -> Mapping[str, Verdict]:
    """Which of those that take work, `crew` with their engines, are to take no more, and why.

    The last one that has some engine is spared: a doubtful worker is better than none.
    """
    by_worker: defaultdict[str, list[Tally]] = defaultdict(list)
    for tally in tallies:
        by_worker[tally.worker_id].append(tally)
    left, verdicts = dict(crew), dict[str, Verdict]()
    for worker_id in sorted(by_worker.keys() & crew.keys()):
        if not any(sum(tally.bad(cause) for tally in by_worker[worker_id]) >= LEAST for cause in Cause):
            continue
        others = [tally for other, its in by_worker.items() if other != worker_id for tally in its]
        verdict = _verdict(by_worker[worker_id], others)
        if verdict is not None and not is_needed(worker_id, crew[worker_id], left):
            verdicts[worker_id] = verdict
            del left[worker_id]
    return verdicts


def is_needed(worker_id: str, engines: Collection[str], crew: Mapping[str, Collection[str]]) -> bool:
    """Whether nobody else takes work with all engines that it has."""
    return not any(set(engines) <= set(has) for other, has in crew.items() if other != worker_id)


def readmits(cause: Cause, reason: Reason | None) -> bool:
    """Whether a canary's ending (None: it completed) ends the quarantine. Where attempts broke, it is enough to run."""
    return reason is None or (cause is Cause.BROKEN and reason not in BROKEN | {Reason.WORKER_LOST})


def begun(verdict: Verdict, now: datetime) -> Quarantine:
    return Quarantine(now, verdict.cause, verdict.reason, now + _pause(0))


def lengthened(quarantine: Quarantine, now: datetime) -> Quarantine:
    """After a canary that failed."""
    failed = quarantine.canaries + 1
    return replace(quarantine, until=now + _pause(failed), canaries=failed)


def _pause(canaries: int) -> timedelta:
    return min(SHORTEST * 2 ** min(canaries, 10), LONGEST)


def _verdict(own: Sequence[Tally], others: Sequence[Tally]) -> Verdict | None:
    ended = sum(tally.ended for tally in own)
    for cause in Cause:
        bad = sum(tally.bad(cause) for tally in own)
        if bad >= LEAST and 2 * bad >= ended and _chance(bad, ended, _expected(own, others, cause)) < CHANCE:
            how = "could not be run" if cause is Cause.BROKEN else "failed"
            return Verdict(cause, f"{bad} of its newest {ended} attempts {how}, far more than on other workers")
    return None


def _expected(own: Sequence[Tally], others: Sequence[Tally], cause: Cause) -> float:
    """Which part of this worker's attempts would have gone wrong elsewhere.

    What nobody else did would have broken as often as anything there, and failed as likely as not.
    """
    ended, bad = Counter[str](), Counter[str]()
    for tally in others:
        ended[tally.work] += tally.ended
        bad[tally.work] += tally.bad(cause)
    unknown = _part(bad.total(), ended.total(), _LIKELY) if cause is Cause.BROKEN else _LIKELY
    expected = sum(tally.ended * _part(bad[tally.work], ended[tally.work], unknown) for tally in own)
    return expected / sum(tally.ended for tally in own)


def _part(bad: int, ended: int, unknown: float) -> float:
    return (bad + _WEIGHT * unknown) / (ended + _WEIGHT)


def _chance(bad: int, ended: int, part: float) -> float:
    """How likely it is that at least so many go wrong, where `part` of them does on the whole."""
    return sum(comb(ended, n) * part**n * (1 - part) ** (ended - n) for n in range(bad, ended + 1))
