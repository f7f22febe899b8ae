"""How long an attempt of a silent worker is waited for, where its definition has more patience than a lease lasts."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gyoza.control import workforce
from gyoza.control.heartbeat import Heard
from gyoza.control.reap import evict
from gyoza.models.definition import Execution, Timeouts
from gyoza.models.errors import NotRegistered, Superseded
from gyoza.policy.deadline import PATIENCE_S
from gyoza.store.attempts import Assigned

from .stage import COMPLETED, NOW, PACE, STARTED, Cluster, failed
from .test_submit import ADD, ask_for

LOST_S, RUN_S = 100.0, 50.0
AWAY_S = PACE.lease_s + 1


async def running(
    cluster: Cluster, lost_s: float | None = LOST_S, *others: Assigned, name: str = "patient", **how: Any
) -> Assigned:
    """An attempt that w1 runs beside others, of a definition with so much patience."""
    wanted = replace(ADD, id=name, execution=Execution(server_lost_s=lost_s), **{"timeouts": Timeouts(), **how})
    await cluster.deploy(wanted)
    await back(cluster, *others)
    run = await ask_for(cluster, b'{"a": 1}', name=name)
    await cluster.place()
    held = next(each for each in (await cluster.look()).assignments if each.run_id == run.id)
    await cluster.tell(held, 1, STARTED)
    await back(cluster, held, *others)
    return held


async def cut_off(cluster: Cluster, seconds: float = AWAY_S) -> dict[str, int]:
    cluster.later(seconds)
    return await cluster.reap()


async def back(cluster: Cluster, *holding: Assigned, **said: Any) -> Heard:
    return await cluster.beat(holding=[(each.run_id, each.attempt) for each in holding], **said)


async def test_an_attempt_is_not_taken_back_before_its_patience_is_over(cluster: Cluster):
    held = await running(cluster)
    assert (await cut_off(cluster))["evicted"] == 1
    assert await cluster.state(held.run_id) == ("RUNNING", 1)
    cluster.now = NOW + timedelta(seconds=LOST_S - 0.001)
    assert (await cluster.reap())["evicted"] == 0
    assert await cluster.state(held.run_id) == ("RUNNING", 1)
    cluster.now = NOW + timedelta(seconds=LOST_S)
    assert (await cluster.reap())["evicted"] == 1
    run = await cluster.run(held.run_id)
    assert (run.state, run.current_attempt, run.infra_losses, run.user_failures) == ("PENDING", 2, 1, 0)
    assert await cluster.story(held.run_id) == ["ASSIGNED 1", "STARTED 1", "INFO 1", "FAILED 1", "RETRIED 2"]
    assert (await cluster.reap())["evicted"] == 0


@pytest.mark.parametrize("lost_s", [None, PACE.lease_s - 10, PACE.lease_s])
async def test_no_patience_is_shorter_than_a_lease_and_none_is_the_lease(cluster: Cluster, lost_s: float | None):
    held = await running(cluster, lost_s)
    await cut_off(cluster, PACE.lease_s)
    assert await cluster.state(held.run_id) == ("RUNNING", 1)
    await cut_off(cluster, 0.001)
    assert await cluster.state(held.run_id) == ("PENDING", 2)
    assert "INFO 1" not in await cluster.story(held.run_id)


async def test_each_run_has_its_own_patience(cluster: Cluster):
    held: dict[float | None, Assigned] = {}
    for lost_s in (40.0, 60.0, None):
        held[lost_s] = await running(cluster, lost_s, *held.values(), name=f"op-{lost_s}")
    lost: dict[float, set[float | None]] = {}
    for second in range(20, 62):
        cluster.now = NOW + timedelta(seconds=second + 0.5)
        await cluster.reap()
        lost[second + 0.5] = {lost_s for lost_s, each in held.items() if (await cluster.state(each.run_id))[1] == 2}
    assert lost[20.5] == lost[39.5] == {None}
    assert lost[40.5] == lost[59.5] == {None, 40.0}
    assert lost[60.5] == {None, 40.0, 60.0}


async def test_a_worker_that_is_back_in_time_goes_on_under_its_lease(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    heard = await back(cluster, held)
    assert (heard.drain, list(heard.stop)) == (False, [])
    await cut_off(cluster, LOST_S - 1)
    await back(cluster, held)
    assert (await cluster.tell(held, 2, COMPLETED, settled=True)).ok
    run = await cluster.run(held.run_id)
    assert (run.state, run.current_attempt, run.infra_losses, run.user_failures) == ("COMPLETED", 1, 0, 0)
    assert await cluster.slots_taken() == 0


async def test_a_worker_that_is_back_too_late_is_told_to_stop_and_what_it_says_changes_nothing(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await cut_off(cluster, LOST_S)
    heard = await back(cluster, held)
    assert [(stop.run_id, stop.attempt, stop.reason) for stop in heard.stop] == [(held.run_id, 1, "worker_lost")]
    assert (await cluster.tell(held, 2, COMPLETED)).code == "lease_lost"
    assert (await cluster.tell(held, 3, settled=True)).ok
    assert await cluster.state(held.run_id) == ("PENDING", 2)


async def test_the_run_says_what_it_waits_for(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await cut_off(cluster, 1)
    await back(cluster, held)
    said = await cluster.ask(
        "SELECT msg #>> '{}' FROM events WHERE run_id = %s AND type = 'INFO' ORDER BY n", held.run_id
    )
    assert said == [
        (
            "Worker w1 is silent since 2026-01-02T03:04:05.000000+00:00; "
            "waiting for it until 2026-01-02T03:05:45.000000+00:00",
        ),
        ("Worker w1 is back, and goes on with it",),
    ]


async def test_its_room_is_gone_meanwhile(cluster: Cluster):
    await running(cluster)
    await cut_off(cluster)
    await cluster.submit()
    assert await cluster.place() == 0


async def test_what_it_comes_back_without_is_lost_at_once(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await back(cluster)
    assert await cluster.state(held.run_id) == ("PENDING", 2)
    assert await cluster.slots_taken() == 0
    assert (await cluster.tell(held, 2, COMPLETED)).code == "lease_lost"


async def test_a_new_process_that_has_taken_it_up_goes_on_with_it(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await back(cluster, held, instance="w1-b")
    assert (await cluster.tell(held, 2, COMPLETED)).ok
    with pytest.raises(Superseded):
        await cluster.beat()


async def test_another_host_that_takes_the_name_over_ends_the_wait(cluster: Cluster):
    """Whoever gives the name away says that the old host does not come back. If it does, it is told so."""
    held = await running(cluster)
    await cut_off(cluster)
    await back(cluster, instance="other", host_id="host-2")
    assert await cluster.state(held.run_id) == ("PENDING", 2)
    with pytest.raises(Superseded):
        await back(cluster, held)


async def test_who_asks_before_it_is_back_is_told_to_register_and_nothing_is_lost(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    with pytest.raises(NotRegistered):
        await cluster.look()
    await back(cluster, held)
    assert (await cluster.tell(held, 2, COMPLETED)).ok


async def test_what_was_never_taken_up_is_not_waited_for(cluster: Cluster):
    await cluster.deploy(replace(ADD, execution=Execution(server_lost_s=LOST_S), timeouts=Timeouts()))
    await cluster.beat()
    run = await ask_for(cluster, b'{"a": 1}')
    await cluster.place()
    await cut_off(cluster)
    assert await cluster.state(run.id) == ("PENDING", 2)


async def test_a_run_that_is_cancelled_meanwhile_is_stopped_when_its_worker_is_back(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await cluster.cancel(held.run_id)
    story = await cluster.story(held.run_id)
    await cut_off(cluster, LOST_S)
    heard = await back(cluster, held)
    assert [(stop.run_id, stop.reason) for stop in heard.stop] == [(held.run_id, "cancelled")]
    assert (await cluster.run(held.run_id)).state == "CANCELLED"
    assert await cluster.story(held.run_id) == story
    assert await cluster.ask("SELECT awaited_until FROM workers") == [(None,)]


async def test_a_worker_that_is_removed_is_not_waited_for(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await workforce.remove(cluster.database, "w1", cluster.now)
    assert await cluster.state(held.run_id) == ("PENDING", 2)
    assert (await cut_off(cluster, LOST_S))["evicted"] == 0


async def test_a_worker_that_is_heard_while_it_is_to_be_given_up_keeps_what_it_holds(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    cluster.later(LOST_S)
    await back(cluster, held)
    assert not await evict(cluster.database, cluster.epoch, "w1", cluster.pace, cluster.now)
    assert await cluster.state(held.run_id) == ("RUNNING", 1)


async def test_another_leader_waits_as_long(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await cluster.lead_anew()
    assert (await cluster.reap())["evicted"] == 0
    assert (await cut_off(cluster, LOST_S))["evicted"] == 1
    assert await cluster.state(held.run_id) == ("PENDING", 2)


async def test_what_runs_for_too_long_unheard_is_its_workers_to_tell(cluster: Cluster):
    """It may have ended in time: nobody but the worker knows."""
    held = await running(cluster, 1000.0, timeouts=Timeouts(run_s=RUN_S))
    await cut_off(cluster)
    assert await cut_off(cluster, RUN_S + PATIENCE_S) == {"evicted": 0, "expired": 0}
    await back(cluster, held)
    assert (await cluster.reap())["expired"] == 0
    assert (await cluster.tell(held, 2, COMPLETED)).ok


async def test_what_a_worker_that_is_back_does_not_end_the_server_does(cluster: Cluster):
    held = await running(cluster, 1000.0, timeouts=Timeouts(run_s=RUN_S))
    await cut_off(cluster)
    await cut_off(cluster, RUN_S + PATIENCE_S)
    await back(cluster, held)
    await cluster.keep_alive("w1", PATIENCE_S, [(held.run_id, 1)])
    assert (await cluster.reap())["expired"] == 1
    assert (await cluster.run(held.run_id)).user_failures == 1


async def test_a_second_silence_is_borne_as_long_as_the_first(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await back(cluster, held)
    await cut_off(cluster, LOST_S - 1)
    assert await cluster.state(held.run_id) == ("RUNNING", 1)
    await cut_off(cluster, 1)
    assert await cluster.state(held.run_id) == ("PENDING", 2)


async def test_what_fails_when_the_worker_is_back_spends_what_it_always_spends(cluster: Cluster):
    held = await running(cluster)
    await cut_off(cluster)
    await back(cluster, held)
    assert (await cluster.tell(held, 2, failed())).ok
    run = await cluster.run(held.run_id)
    assert (run.infra_losses, run.user_failures) == (0, 1)
