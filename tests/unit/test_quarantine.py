"""Which workers are not trusted any more: what holds for every history, then the plain cases one by one."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models.reasons import Reason
from gyoza.policy.quarantine import (
    BROKEN,
    FAILED,
    LEAST,
    LONGEST,
    NEWEST,
    SHORTEST,
    Cause,
    Quarantine,
    Tally,
    Verdict,
    begun,
    convict,
    is_needed,
    lengthened,
    readmits,
)

from .builders import NOW

WORKERS = ["w0", "w1", "w2", "w3", "w4"]
WORKS = ["a", "b", "c"]
ENGINES = {"docker"}


def crew(*workers: str) -> dict[str, set[str]]:
    return dict.fromkeys(workers, ENGINES)


def convicted(*tallies: Tally, takes_work: dict[str, set[str]] | None = None) -> dict[str, Cause]:
    workers = takes_work or crew(*(tally.worker_id for tally in tallies))
    return {worker_id: verdict.cause for worker_id, verdict in convict(tallies, workers).items()}


def good(worker_id: str, work: str = "a", ended: int = NEWEST) -> Tally:
    return Tally(worker_id, work, ended)


def broken(worker_id: str, work: str = "a", count: int = NEWEST) -> Tally:
    return Tally(worker_id, work, count, broken=count, failed=count)


def failing(worker_id: str, work: str = "a", count: int = NEWEST) -> Tally:
    return Tally(worker_id, work, count, failed=count)


@st.composite
def histories(draw: st.DrawFn, workers: list[str] | None = None) -> list[Tally]:
    """Of each worker at most so many endings as are looked at."""
    tallies: list[Tally] = []
    for worker_id in workers or WORKERS:
        left = NEWEST
        for work in draw(st.lists(st.sampled_from(WORKS), unique=True, max_size=3)):
            ended = draw(st.integers(1, left))
            failed = draw(st.integers(0, ended))
            tallies.append(Tally(worker_id, work, ended, draw(st.integers(0, failed)), failed))
            left -= ended
            if not left:
                break
    return tallies


@given(histories(["w0"]))
def test_a_worker_without_others_is_never_convicted(tallies: list[Tally]):
    assert not convicted(*tallies, takes_work=crew("w0"))
    assert not convicted(*tallies, takes_work=crew("w0", "idle"))


@given(histories())
def test_somebody_is_always_left(tallies: list[Tally]):
    assert len(convicted(*tallies, takes_work=crew(*WORKERS))) < len(WORKERS)


@given(histories())
def test_only_many_failures_that_are_most_of_all_convict(tallies: list[Tally]):
    for worker_id in convicted(*tallies, takes_work=crew(*WORKERS)):
        failed = sum(tally.failed for tally in tallies if tally.worker_id == worker_id)
        ended = sum(tally.ended for tally in tallies if tally.worker_id == worker_id)
        assert failed >= LEAST and 2 * failed >= ended


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(tallies: list[Tally], random: Random):
    found = convicted(*tallies, takes_work=crew(*WORKERS))
    random.shuffle(tallies)
    assert convicted(*tallies, takes_work=crew(*reversed(WORKERS))) == found


@given(histories())
def test_who_takes_no_work_is_not_judged_but_counts_for_the_others(tallies: list[Tally]):
    everyone = convicted(*tallies, takes_work=crew(*WORKERS))
    some = convicted(*tallies, takes_work=crew("w1", "w2", "w3", "w4"))
    assert some.keys() == everyone.keys() - {"w0"} or len(some) == 3


@given(st.integers(1, 5), st.sampled_from(WORKS), histories())
def test_an_op_that_always_fails_convicts_nobody(count: int, work: str, tallies: list[Tally]):
    """Whoever runs it, and whatever else is run well."""
    others = [replace(tally, broken=0, failed=0) for tally in tallies if tally.work != work]
    assert not convicted(*others, *(failing(worker_id, work, count) for worker_id in WORKERS))


@given(histories(["w1", "w2", "w3"]))
def test_one_that_does_as_well_as_the_best_is_never_convicted(tallies: list[Tally]):
    assert "w0" not in convicted(*tallies, good("w0"), takes_work=crew(*WORKERS))


@pytest.mark.parametrize("bad", [broken, failing])
def test_a_worker_on_which_all_goes_wrong_that_goes_well_elsewhere_is_convicted(bad: Callable[..., Tally]):
    cause = Cause.BROKEN if bad is broken else Cause.FAILING
    tallies = [good("w1"), good("w2"), bad("w0")]
    assert convicted(*tallies) == {"w0": cause}


def test_a_worker_on_which_every_op_fails_is_convicted_by_all_of_them_together():
    tallies = [failing("w0", work, 3) for work in WORKS] + [good("w1", work, 10) for work in WORKS]
    assert convicted(*tallies) == {"w0": Cause.FAILING}


def test_what_breaks_need_not_have_been_tried_elsewhere_but_what_fails_must_have_been():
    assert convicted(broken("w0", "a"), good("w1", "b")) == {"w0": Cause.BROKEN}
    assert convicted(failing("w0", "a"), good("w1", "b")) == {}


def test_what_breaks_everywhere_convicts_nobody():
    assert convicted(*(broken(worker_id) for worker_id in WORKERS)) == {}
    assert convicted(broken("w0"), broken("w1", count=5), good("w2", "b")) == {}


@pytest.mark.parametrize("count", range(1, LEAST))
def test_a_few_failures_are_never_enough(count: int):
    assert convicted(broken("w0", count=count), *(good(worker_id) for worker_id in WORKERS[1:])) == {}


@pytest.mark.parametrize("bad", [broken, failing])
def test_a_few_endings_elsewhere_are_not_enough_to_compare_with(bad: Callable[..., Tally]):
    assert convicted(bad("w0", count=LEAST), good("w1", ended=1)) == {}


def test_a_worker_that_does_most_of_its_work_well_is_worth_having():
    others = [good(worker_id) for worker_id in WORKERS[1:]]
    assert convicted(Tally("w0", "a", 20, broken=9, failed=9), *others) == {}
    assert convicted(Tally("w0", "a", 20, broken=10, failed=10), *others) == {"w0": Cause.BROKEN}


def test_an_op_that_often_fails_takes_more_to_convict():
    flaky = [Tally(worker_id, "a", 20, failed=6) for worker_id in WORKERS[1:]]
    assert convicted(failing("w0", count=10), *flaky) == {}
    assert convicted(failing("w0", count=20), *flaky) == {"w0": Cause.FAILING}


def test_the_last_one_that_has_an_engine_is_spared():
    tallies = [broken("w0"), good("w1"), good("w2")]
    both, process = {"docker", "process"}, {"process"}
    assert convicted(*tallies, takes_work={"w0": both, "w1": process, "w2": process}) == {}
    assert convicted(*tallies, takes_work={"w0": process, "w1": both, "w2": process}) == {"w0": Cause.BROKEN}
    assert is_needed("w0", both, {"w1": process, "w0": both})
    assert not is_needed("w0", process, {"w1": both})


def test_the_reason_is_a_sentence_with_the_figures():
    verdicts = convict([broken("w0", count=7), good("w1"), good("w2")], crew("w0", "w1", "w2"))
    says = "7 of its newest 7 attempts could not be run, far more than on other workers"
    assert verdicts == {"w0": Verdict(Cause.BROKEN, says)}


def test_every_reason_that_costs_counts_but_a_lost_worker():
    free = {"released", "declined", "drained", "preempted", "queue_timeout", "expired", "cancelled"}
    assert set(Reason) - FAILED == free | {"worker_lost"}
    assert {"image_pull_failed", "start_failed", "start_timeout", "disk_full"} == BROKEN


@pytest.mark.parametrize("reason", [None, *sorted(FAILED | {Reason.WORKER_LOST})])
def test_a_canary_that_completes_readmits_and_one_that_could_not_run_does_not(reason: Reason | None):
    assert readmits(Cause.FAILING, reason) is (reason is None)
    assert readmits(Cause.BROKEN, reason) is (reason not in BROKEN | {"worker_lost"})


def test_each_canary_that_fails_doubles_the_pause_up_to_the_longest():
    held = begun(Verdict(Cause.BROKEN, "why"), NOW)
    assert held == Quarantine(NOW, Cause.BROKEN, "why", NOW + SHORTEST)
    pauses = [held.until - NOW]
    for _ in range(20):
        held = lengthened(held, NOW)
        pauses.append(held.until - NOW)
    assert pauses[:4] == [SHORTEST, 2 * SHORTEST, 4 * SHORTEST, 8 * SHORTEST]
    assert pauses[-1] == LONGEST == max(pauses)
    assert (held.since, held.canaries) == (NOW, 20)
