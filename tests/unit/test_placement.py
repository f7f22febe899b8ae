"""Where waiting runs go: what holds for every queue and every fleet, then the preferences one by one."""

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gyoza.models.resources import Constraints, Free
from gyoza.policy.placement import Plan, Waiting, WorkerRoom, place

from .builders import NOW, at, room, waiting

ENGINES = st.frozensets(st.sampled_from(["docker", "process"]), min_size=1)
WORKERS = ["w0", "w1", "w2", "w3"]


def fleets(min_size: int = 0) -> st.SearchStrategy[list[WorkerRoom]]:
    """Workers of every size, some of them over-committed already."""
    vram = st.dictionaries(st.integers(0, 2), st.integers(-1000, 16_000), max_size=3)
    free = st.builds(Free, st.integers(-500, 6000), st.integers(-100, 4000), st.integers(-1, 5), vram)
    rooms = st.builds(WorkerRoom, st.sampled_from(WORKERS), free, ENGINES, st.booleans())
    return st.lists(rooms, unique_by=lambda room: room.worker_id, min_size=min_size)


def queues() -> st.SearchStrategy[list[Waiting]]:
    needs = st.builds(
        Constraints,
        st.none() | st.integers(0, 4000),
        st.none() | st.integers(0, 2000),
        st.none() | st.integers(0, 9000),
    )
    runs = st.builds(
        Waiting,
        st.integers(0, 99).map("run-{}".format),
        st.integers(1, 3),
        st.integers(-3, 3).map(at),
        needs,
        ENGINES,
        st.frozensets(st.sampled_from(WORKERS)),
        st.booleans(),
    )
    return st.lists(runs, unique_by=lambda run: run.run_id, max_size=12)


def as_value(plan: Plan):
    return list(plan.placements), dict(plan.waiting)


@given(queues(), fleets())
def test_every_run_is_placed_once_or_explained(pending: list[Waiting], rooms: list[WorkerRoom]):
    plan = place(pending, rooms, NOW)
    assert sorted([p.run_id for p in plan.placements] + list(plan.waiting)) == sorted(run.run_id for run in pending)
    assert all(plan.waiting.values())
    attempts = {run.run_id: run.attempt for run in pending}
    assert all(placed.attempt == attempts[placed.run_id] for placed in plan.placements)


@given(queues(), fleets())
def test_no_worker_and_no_gpu_is_ever_over_committed(pending: list[Waiting], rooms: list[WorkerRoom]):
    runs = {run.run_id: run.constraints.counted for run in pending}
    placements = place(pending, rooms, NOW).placements
    for worker in rooms:
        taken = [(runs[p.run_id], p.gpu_ids) for p in placements if p.worker_id == worker.worker_id]
        if not taken:
            continue
        assert sum(need.cpu_m for need, _ in taken) <= worker.free.cpu_m
        assert sum(need.ram_mb for need, _ in taken) <= worker.free.ram_mb
        assert len(taken) <= worker.free.slots
        for gpu in {gpu for _, gpus in taken for gpu in gpus}:
            assert sum(need.vram_mb for need, gpus in taken if gpu in gpus) <= worker.free.vram_mb[gpu]


@given(queues(), fleets())
def test_a_run_has_one_gpu_if_it_wants_vram_and_else_none(pending: list[Waiting], rooms: list[WorkerRoom]):
    wants = {run.run_id: run.constraints.counted.vram_mb > 0 for run in pending}
    assert all(len(p.gpu_ids) == wants[p.run_id] for p in place(pending, rooms, NOW).placements)


@given(queues(), fleets(), st.randoms(use_true_random=False))
def test_neither_the_order_of_workers_nor_that_of_the_input_matters(
    pending: list[Waiting], rooms: list[WorkerRoom], random: Random
):
    plan = as_value(place(pending, rooms, NOW))
    random.shuffle(pending)
    random.shuffle(rooms)
    assert as_value(place(pending, rooms, NOW)) == plan


@given(queues(), fleets())
def test_a_run_goes_only_where_its_engine_is(pending: list[Waiting], rooms: list[WorkerRoom]):
    runs, workers = {run.run_id: run for run in pending}, {room.worker_id: room for room in rooms}
    for placed in place(pending, rooms, NOW).placements:
        assert runs[placed.run_id].engines & workers[placed.worker_id].engines


@given(queues(), fleets())
def test_what_waits_would_not_fit_into_what_is_left(pending: list[Waiting], rooms: list[WorkerRoom]):
    plan = place(pending, rooms, NOW)
    runs, left = {run.run_id: run for run in pending}, {room.worker_id: room for room in rooms}
    for placed in plan.placements:
        at_worker, need = left[placed.worker_id], runs[placed.run_id].constraints.counted
        left[placed.worker_id] = replace(at_worker, free=at_worker.free.minus(need, placed.gpu_ids))
    for run in (runs[run_id] for run_id in plan.waiting):
        assert not any(run.engines & r.engines and r.free.fits(run.constraints.counted) for r in left.values())


@given(queues(), fleets(min_size=1))
def test_a_worker_to_avoid_is_taken_only_where_there_is_no_other(pending: list[Waiting], rooms: list[WorkerRoom]):
    for run in pending:
        for placed in place([run], rooms, NOW).placements:
            others = [room for room in rooms if room.worker_id not in run.avoid]
            assert placed.worker_id not in run.avoid or not place([run], others, NOW).placements


@given(queues(), fleets())
def test_one_more_run_at_the_end_of_the_queue_changes_nothing_before_it(
    pending: list[Waiting], rooms: list[WorkerRoom]
):
    last = waiting("run-last", entered=at(1000))
    before, after = place(pending, rooms, NOW), place([*pending, last], rooms, NOW)
    assert list(after.placements)[: len(before.placements)] == list(before.placements)
    assert {
        run_id: why for run_id, why in after.waiting.items() if run_id != "run-last"
    }.keys() == before.waiting.keys()


def placed(plan: Plan) -> dict[str, str]:
    return {placement.run_id: placement.worker_id for placement in plan.placements}


def test_where_one_fits_the_earlier_in_the_queue_is_taken():
    pending = [waiting("late", entered=at(2)), waiting("early", entered=at(1)), waiting("later", entered=at(3))]
    plan = place(pending, [room("w", slots=1)], NOW)
    assert placed(plan) == {"early": "w"}
    assert list(plan.waiting) == ["late", "later"]


def test_of_two_that_entered_together_the_smaller_id_is_taken():
    assert placed(place([waiting("b"), waiting("a")], [room("w", slots=1)], NOW)) == {"a": "w"}


def test_a_run_too_big_for_now_does_not_hold_up_a_small_one_behind_it():
    pending = [waiting("big", cpu_m=9000), waiting("small", entered=at(1))]
    assert placed(place(pending, [room("w")], NOW)) == {"small": "w"}


def test_the_fullest_worker_is_filled_so_that_big_holes_stay_whole():
    rooms = [room("empty", cpu_m=8000), room("full", cpu_m=2000)]
    pending = [waiting("small"), waiting("big", entered=at(1), cpu_m=8000)]
    assert placed(place(pending, rooms, NOW)) == {"small": "full", "big": "empty"}


def test_a_run_without_gpu_leaves_the_gpus_to_others():
    rooms = [room("gpu", cpu_m=1000, gpu0=16_000), room("plain", cpu_m=8000)]
    assert placed(place([waiting("a")], rooms, NOW)) == {"a": "plain"}


def test_vram_is_not_added_up_over_gpus():
    plan = place([waiting("a", vram_mb=10_000)], [room("w", gpu0=8000, gpu1=8000)], NOW)
    assert plan.waiting == {"a": "no room: of 1 workers too little vram on 1"}


def test_runs_share_a_gpu_until_it_is_full():
    pending = [waiting(name, vram_mb=4000) for name in "abcd"]
    plan = place(pending, [room("w", cpu_m=8000, gpu0=8000, gpu1=6000)], NOW)
    assert [placement.gpu_ids for placement in plan.placements] == [(1,), (0,), (0,)]
    assert list(plan.waiting) == ["d"]


def test_a_run_that_its_only_worker_lost_before_still_goes_there():
    run = replace(waiting("a"), avoid=frozenset({"w"}))
    assert placed(place([run], [room("w")], NOW)) == {"a": "w"}
    assert placed(place([run], [room("w", cpu_m=1000), room("x", cpu_m=9000)], NOW)) == {"a": "x"}


@given(queues(), fleets(min_size=1))
def test_a_run_that_is_not_tried_again_goes_on_trial_only_where_there_is_no_other(
    pending: list[Waiting], rooms: list[WorkerRoom]
):
    on_trial = {room.worker_id for room in rooms if room.on_trial}
    for run in pending:
        alone = replace(run, spare=False, avoid=frozenset())
        for placed in place([alone], rooms, NOW).placements:
            trusted = [room for room in rooms if not room.on_trial]
            assert placed.worker_id not in on_trial or not place([alone], trusted, NOW).placements


def test_a_worker_on_trial_is_given_first_what_is_tried_again():
    rooms = [room("full", cpu_m=2000), replace(room("doubtful", slots=1), on_trial=True)]
    pending = [replace(waiting("once"), spare=False), *(waiting(name, entered=at(1)) for name in ("again", "later"))]
    assert placed(place(pending, rooms, NOW)) == {"once": "full", "again": "doubtful", "later": "full"}


def test_a_run_that_a_worker_on_trial_lost_before_tries_it_last():
    rooms = [room("full", cpu_m=2000), replace(room("doubtful", slots=1), on_trial=True)]
    lost = replace(waiting("a"), avoid=frozenset({"doubtful"}))
    assert placed(place([lost], rooms, NOW)) == {"a": "full"}


def test_a_run_that_waits_is_told_why():
    assert place([waiting("a")], [], NOW).waiting == {"a": "no worker is taking work"}
    elsewhere = replace(waiting("a"), engines=frozenset({"process", "docker"}))
    only = replace(room("w"), engines=frozenset({"other"}))
    assert place([elsewhere], [only], NOW).waiting == {"a": "no worker has the engine it needs (docker or process)"}
    rooms = [room("w1", cpu_m=500), room("w2", cpu_m=500, slots=0), only]
    assert place([waiting("a")], rooms, NOW).waiting == {"a": "no room: of 2 workers too little cpu on 2, slots on 1"}
