"""A round of placing: what goes where, and what must wait."""

from dataclasses import replace

import pytest

from gyoza.control.leadership import Deposed
from gyoza.models.bundle import Bundle
from gyoza.models.definition import Execution
from gyoza.models.resources import Gpu, Resources

from .stage import STARTED, Cluster, failed
from .test_submit import ADD, ask_for

SMALL = Resources(cpu_m=2000, ram_mb=4096, slots=8)


async def test_a_run_is_handed_to_a_worker_with_room_under_a_lease(cluster: Cluster):
    await cluster.beat()
    run_id = await cluster.submit(cpu_m=1000)
    assert await cluster.place() == 1
    held = await cluster.handed()
    assert (held.run_id, held.attempt, len(held.lease) > 20) == (run_id, 1, True)
    assert await cluster.story(run_id) == ["ASSIGNED 1"]


async def test_no_lease_is_like_another(cluster: Cluster):
    assert (await cluster.assigned()).lease != (await cluster.assigned()).lease


async def test_nothing_is_placed_twice(cluster: Cluster):
    await cluster.assigned()
    assert await cluster.place() == 0


async def test_without_workers_runs_wait(cluster: Cluster):
    run_id = await cluster.submit()
    assert await cluster.place() == 0
    assert await cluster.state(run_id) == ("PENDING", 1)


async def test_room_is_what_a_worker_has_less_what_it_holds(cluster: Cluster):
    await cluster.beat(resources=SMALL)
    for _ in range(3):
        await cluster.submit()
    assert await cluster.place() == 2
    assert await cluster.place() == 0
    assert await cluster.slots_taken() == 2


async def test_room_comes_back_only_when_the_attempt_is_settled(cluster: Cluster):
    await cluster.beat(resources=SMALL)
    first = await cluster.submit(cpu_m=2000)
    await cluster.place()
    held = await cluster.handed()
    await cluster.tell(held, 1, STARTED)
    second = await cluster.submit(cpu_m=2000)
    await cluster.cancel(first)
    assert await cluster.place() == 0
    await cluster.tell(held, 2, settled=True)
    assert await cluster.place() == 1
    assert await cluster.state(second) == ("ASSIGNED", 1)


async def test_a_new_attempt_waits_until_the_earlier_one_is_settled(cluster: Cluster):
    held = await cluster.running(attempts=2)
    await cluster.beat("w2")
    await cluster.tell(held, 2, failed())
    assert await cluster.place() == 0
    await cluster.tell(held, 3, settled=True)
    assert await cluster.place() == 1


async def test_or_until_its_worker_is_evicted(cluster: Cluster):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    await cluster.retry(held.run_id)
    cluster.later(30)
    await cluster.beat("w2")
    assert await cluster.place() == 0
    await cluster.reap()
    assert await cluster.place() == 1
    assert (await cluster.handed("w2")).attempt == 2


async def test_but_not_after_that_worker_has_come_back_with_it(cluster: Cluster):
    held = await cluster.running()
    cluster.later(30)
    await cluster.reap()
    await cluster.beat("w1", holding=[(held.run_id, 1)])
    await cluster.beat("w2")
    assert await cluster.place() == 0
    await cluster.beat("w1")
    assert await cluster.place() == 1


async def test_a_run_that_lost_a_worker_goes_elsewhere_first(cluster: Cluster):
    held = await cluster.assigned("w1")
    await cluster.beat("w2")
    await cluster.tell(held, 1, declined=True)
    await cluster.place()
    assert (await cluster.handed("w2")).attempt == 2


async def test_higher_priority_goes_first_and_an_hour_of_waiting_is_worth_a_point(cluster: Cluster):
    await cluster.beat(resources=SMALL)
    patient = await cluster.submit(priority=5, cpu_m=2000)
    cluster.later(3601)
    await cluster.beat(resources=SMALL)
    await cluster.submit(priority=6, cpu_m=2000)
    await cluster.place()
    assert (await cluster.handed()).run_id == patient


async def test_higher_priority_goes_first_among_runs_of_the_same_age(cluster: Cluster):
    await cluster.beat(resources=SMALL)
    await cluster.submit(priority=5, cpu_m=2000)
    urgent = await cluster.submit(priority=6, cpu_m=2000)
    await cluster.place()
    assert (await cluster.handed()).run_id == urgent


async def test_a_queue_of_big_runs_does_not_hide_a_small_one(cluster: Cluster):
    await cluster.beat(resources=SMALL)
    for _ in range(70):
        await cluster.submit(cpu_m=50_000)
    small = await cluster.submit()
    assert await cluster.place() == 1
    assert (await cluster.handed()).run_id == small


async def test_vram_is_found_on_a_single_gpu_and_free_of_strangers(cluster: Cluster):
    gpus = (Gpu(0, "a", "GPU", 8000, foreign_mb=4000), Gpu(1, "b", "GPU", 6000))
    await cluster.beat(resources=Resources(64_000, 64_000, 64, gpus))
    fits, too_big = await cluster.submit(vram_mb=5000), await cluster.submit(vram_mb=7000)
    assert await cluster.place() == 1
    held = await cluster.handed()
    assert (held.run_id, list(held.gpu_ids)) == (fits, [1])
    assert (await cluster.state(too_big))[0] == "PENDING"


async def test_an_image_goes_to_a_worker_with_docker(cluster: Cluster):
    await cluster.beat("w1", engines=("process",))
    await cluster.submit()
    assert await cluster.place() == 0
    await cluster.beat("w2", engines=("docker", "process"))
    assert await cluster.place() == 1
    assert await cluster.slots_taken("w2") == 1


@pytest.mark.parametrize("execution", [Execution(network=False), Execution(user="1000")], ids=["no network", "a user"])
async def test_what_only_a_container_can_do_goes_to_a_worker_with_docker(cluster: Cluster, execution: Execution):
    bundle = Bundle("gyoza://files/1", f"sha256:{'0' * 64}", 1, ("true",))
    await cluster.deploy(replace(ADD, image=None, bundle=bundle, execution=execution))
    await cluster.beat("w1", engines=("process",))
    await ask_for(cluster, b'{"a": 1}')
    assert await cluster.place() == 0
    await cluster.beat("w2", engines=("docker",))
    assert await cluster.place() == 1
    assert await cluster.slots_taken("w2") == 1


async def test_a_run_whose_time_has_not_come_waits(cluster: Cluster):
    await cluster.beat()
    await cluster.submit()
    await cluster.ask("UPDATE runs SET due = false, run_at = %s", cluster.now.replace(year=2027))
    assert await cluster.place() == 0


async def test_a_server_that_no_longer_leads_places_nothing(cluster: Cluster):
    await cluster.beat()
    run_id = await cluster.submit()
    await cluster.ask("UPDATE leader SET epoch = epoch + 1")
    with pytest.raises(Deposed):
        await cluster.place()
    assert await cluster.state(run_id) == ("PENDING", 1)


async def test_a_leader_whose_lease_ran_out_places_nothing(cluster: Cluster):
    await cluster.beat()
    await cluster.submit()
    await cluster.ask("UPDATE leader SET expires_at = clock_timestamp() - interval '1 ms'")
    with pytest.raises(Deposed):
        await cluster.place()
