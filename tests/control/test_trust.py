"""Workers in quarantine: how they come into it, what they are given there, how they come out again."""

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from gyoza.control import trust, workforce
from gyoza.control.leadership import Deposed
from gyoza.control.submit import AdHoc, Options
from gyoza.models.resources import Resources
from gyoza.policy.quarantine import LONGEST, NEWEST, RUNS, SHORTEST, WITHIN, Cause, Quarantine
from gyoza.store.attempts import Assigned

from .stage import COMPLETED, STARTED, Cluster, failed

PAUSE_S = SHORTEST.total_seconds()
DONE = ("completed",)


async def judge(cluster: Cluster) -> dict[str, int]:
    return await trust.judge(cluster.database, cluster.epoch, cluster.now)


async def held_back(cluster: Cluster, worker: str = "w1") -> Quarantine | None:
    return (await workforce.one(cluster.database, worker, cluster.pace, cluster.now)).worker.quarantine


async def end(cluster: Cluster, held: Assigned, how: str) -> None:
    """Completed, cancelled, or failed for that reason."""
    if how == "cancelled":
        await cluster.cancel(held.run_id)
        await cluster.tell(held, 1, settled=True)
        return
    events = [STARTED, COMPLETED] if how == "completed" else [STARTED, failed(how)]
    assert (await cluster.tell(held, 1, *events, settled=True)).ok


async def work(cluster: Cluster, worker: str, *endings: str, image: str = "busybox") -> None:
    """A worker, alone, ends so many runs of an image, one a second; no run is tried again."""
    policy = {"fail_on": ["disk_full", "start_failed"]}
    for how in endings:
        await cluster.beat(worker)
        await cluster.ask_for(AdHoc(image, options=Options(retry_policy=policy)))
        cluster.later(1)
        await cluster.place()
        await end(cluster, await cluster.handed(worker), how)
        await cluster.beat(worker, resources=Resources(64_000, 256_000, 0))


async def open_up(cluster: Cluster, *workers: str) -> None:
    for worker in workers:
        await cluster.beat(worker)


async def caught(cluster: Cluster, how: str = "disk_full") -> None:
    """w1 is in quarantine, w2 is not; both have room."""
    await work(cluster, "w2", *["completed"] * 10)
    await work(cluster, "w1", *[how] * 10)
    await open_up(cluster, "w1", "w2")
    assert (await judge(cluster))["quarantined"] == 1


async def canary(cluster: Cluster, **how: Any) -> Assigned:
    """The run that w1 is given on trial."""
    await cluster.submit(attempts=2, **how)
    await cluster.place()
    return await cluster.handed("w1")


async def pass_by(cluster: Cluster, seconds: float) -> None:
    cluster.later(seconds)
    await open_up(cluster, "w1", "w2")


@pytest.mark.parametrize(("how", "cause"), [("disk_full", Cause.BROKEN), ("op_error", Cause.FAILING)])
async def test_a_worker_on_which_everything_goes_wrong_takes_no_more_runs(
    cluster: Cluster, how: str, cause: Cause, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        await caught(cluster, how)
    quarantine = await held_back(cluster)
    assert quarantine is not None
    assert (quarantine.since, quarantine.until) == (cluster.now, cluster.now + SHORTEST)
    assert (quarantine.cause, quarantine.canaries) == (cause, 0)
    assert caplog.messages == [f"worker w1 is in quarantine: {quarantine.reason}"]
    for _ in range(5):
        await cluster.submit(attempts=2)
    assert await cluster.place() == 5
    assert len((await cluster.look("w2")).assignments) == 5
    assert await held_back(cluster, "w2") is None


async def test_one_run_that_is_tried_and_breaks_again_and_again_convicts_nobody(cluster: Cluster):
    """Its fault may be its own: a login or a secret that no worker has."""
    await work(cluster, "w2", *["completed"] * 20)
    await open_up(cluster, "w1")
    await cluster.submit()
    for _ in range(5):
        cluster.later(1)
        await cluster.place()
        await end(cluster, await cluster.handed("w1"), "disk_full")
    await open_up(cluster, "w1", "w2")
    assert await cluster.ask("SELECT count(*) FROM attempts WHERE held_by = 'w1' AND reason = 'disk_full'") == [(5,)]
    await judge(cluster)
    assert await held_back(cluster) is None


async def test_what_it_runs_already_goes_on(cluster: Cluster):
    held = await cluster.running("w1")
    await cluster.beat("w1", [(held.run_id, 1)], resources=Resources(64_000, 256_000, 0))
    await work(cluster, "w2", *["completed"] * 10)
    for _ in range(10):
        await cluster.beat("w2", resources=Resources(64_000, 256_000, 0))
        await cluster.beat("w1", [(held.run_id, 1)])
        await cluster.ask_for(AdHoc("busybox", options=Options(retry_policy={"fail_on": ["disk_full"]})))
        await cluster.place()
        (fresh,) = (await cluster.look("w1", [(held.run_id, 1)])).assignments
        await end(cluster, fresh, "disk_full")
    await cluster.beat("w2")
    assert (await judge(cluster))["quarantined"] == 1
    assert await cluster.state(held.run_id) == ("RUNNING", 1)
    assert (await cluster.tell(held, 2, COMPLETED, settled=True)).ok


async def test_an_op_that_always_fails_sends_nobody_there(cluster: Cluster):
    for worker in ("w1", "w2"):
        await work(cluster, worker, *["completed"] * 5, image="good")
        await work(cluster, worker, *["op_error"] * 15, image="bad")
    await open_up(cluster, "w1", "w2")
    assert await judge(cluster) == {"judged": 1, "readmitted": 0, "quarantined": 0}


async def test_the_only_worker_takes_runs_whatever_it_does(cluster: Cluster):
    await work(cluster, "w1", *["disk_full"] * 30)
    await open_up(cluster, "w1")
    assert await judge(cluster) == {"judged": 1, "readmitted": 0, "quarantined": 0}
    await cluster.submit()
    assert await cluster.place() == 1


@pytest.mark.parametrize("how", ["cancelled", "completed"])
async def test_what_is_no_failure_raises_no_doubt(cluster: Cluster, how: str):
    await work(cluster, "w2", *["completed"] * 10)
    await work(cluster, "w1", *[how] * 10)
    assert await judge(cluster) == {}


async def test_a_lost_worker_is_no_bad_worker(cluster: Cluster):
    """A network that was away for a moment says nothing of the machine, however much it ran."""
    await work(cluster, "w2", *["completed"] * 10)
    for _ in range(10):
        await cluster.running("w1")
    cluster.later(30)
    await cluster.beat("w2")
    await cluster.reap()
    await cluster.beat("w1")
    assert await judge(cluster) == {}


async def test_what_is_long_ago_counts_no_more(cluster: Cluster):
    await work(cluster, "w2", *["completed"] * 10)
    await work(cluster, "w1", *["disk_full"] * 10)
    await pass_by(cluster, WITHIN.total_seconds())
    assert await judge(cluster) == {}


async def test_only_the_newest_endings_count(cluster: Cluster):
    await work(cluster, "w2", *["completed"] * 10)
    await work(cluster, "w1", *["disk_full"] * 10, *["completed"] * NEWEST)
    assert await judge(cluster) == {}


async def test_after_a_pause_it_is_given_one_run_at_a_time(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S - 0.001)
    for _ in range(3):
        await cluster.submit(attempts=2)
    await cluster.place()
    assert (await cluster.look("w1")).assignments == []
    await pass_by(cluster, 0.001)
    held = await canary(cluster)
    for _ in range(3):
        await cluster.submit(attempts=2)
    await cluster.place()
    assert (await cluster.look("w1")).assignments == [held]
    await cluster.tell(held, 1, STARTED)
    await cluster.submit(attempts=2)
    await cluster.place()
    assert (await cluster.look("w1", [(held.run_id, 1)])).assignments == []


async def test_of_many_that_wait_it_is_given_one(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    for _ in range(5):
        await cluster.submit(attempts=2)
    assert await cluster.place() == 5
    assert len((await cluster.look("w1")).assignments) == 1
    assert len((await cluster.look("w2")).assignments) == 4


async def test_no_other_is_given_to_it_before_the_first_one_is_judged(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    await end(cluster, await canary(cluster), "disk_full")
    await cluster.submit(attempts=2)
    await cluster.place()
    assert (await cluster.look("w1")).assignments == []


async def test_a_canary_that_comes_through_readmits_it(cluster: Cluster, caplog: pytest.LogCaptureFixture):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    await end(cluster, await canary(cluster), "completed")
    with caplog.at_level(logging.WARNING):
        assert await judge(cluster) == {"judged": 1, "readmitted": 1, "quarantined": 0}
    assert caplog.messages[-1:] == ["worker w1 takes runs again: one came through"]
    assert await held_back(cluster) is None
    assert await judge(cluster) == {}, "what was before does not count any more"


async def test_where_attempts_broke_it_is_enough_that_one_runs(cluster: Cluster):
    await caught(cluster, "disk_full")
    await pass_by(cluster, PAUSE_S)
    await end(cluster, await canary(cluster), "op_error")
    assert (await judge(cluster))["readmitted"] == 1


@pytest.mark.parametrize(("how", "readmitted"), [("disk_full", 1), ("op_error", 0)])
async def test_where_attempts_broke_a_long_canary_need_not_end(cluster: Cluster, how: str, readmitted: int):
    await caught(cluster, how)
    await pass_by(cluster, PAUSE_S)
    held = await canary(cluster)
    await cluster.tell(held, 1, STARTED)
    for seconds, freed in ((RUNS.total_seconds() - 0.001, 0), (0.001, readmitted)):
        cluster.later(seconds)
        await cluster.beat("w1", [(held.run_id, held.attempt)])
        await cluster.beat("w2")
        assert (await judge(cluster))["readmitted"] == freed
    assert await cluster.state(held.run_id) == ("RUNNING", 1)


@pytest.mark.parametrize("how", ["disk_full", "op_error"])
async def test_a_canary_that_fails_lengthens_the_pause(cluster: Cluster, how: str):
    await caught(cluster, how)
    since = cluster.now
    for canaries in range(1, 8):
        before = await held_back(cluster)
        assert before is not None
        cluster.now = before.until
        await open_up(cluster, "w1", "w2")
        await end(cluster, await canary(cluster), how)
        assert await judge(cluster) == {"judged": 1, "readmitted": 0, "quarantined": 0}
        pause = min(SHORTEST * 2**canaries, LONGEST)
        assert await held_back(cluster) == replace(before, until=cluster.now + pause, canaries=canaries)
        assert before.since == since


async def test_a_canary_that_says_nothing_is_followed_by_another_one(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    await end(cluster, await canary(cluster), "cancelled")
    assert await judge(cluster) == {"judged": 1, "readmitted": 0, "quarantined": 0}
    await end(cluster, await canary(cluster), "completed")
    assert (await judge(cluster))["readmitted"] == 1


async def test_what_it_held_before_is_no_canary(cluster: Cluster):
    await open_up(cluster, "w1")
    old = await cluster.running("w1")
    await cluster.beat("w1", [(old.run_id, 1)], resources=Resources(64_000, 256_000, 0))
    await quarantine(cluster, "w1")
    await open_up(cluster, "w2")
    cluster.later(PAUSE_S + 1)
    await cluster.tell(old, 2, COMPLETED, settled=True)
    await open_up(cluster, "w1", "w2")
    assert await judge(cluster) == {"judged": 1, "readmitted": 0, "quarantined": 0}


async def quarantine(cluster: Cluster, worker: str, until: datetime | None = None) -> None:
    query = """
        UPDATE workers SET quarantined_at = %s, quarantine_cause = 'failing', quarantine_reason = 'a test',
            canary_at = %s WHERE id = %s
        """
    await cluster.ask(query, cluster.now, until or cluster.now + SHORTEST, worker)


async def test_a_canary_on_which_the_worker_falls_silent_has_failed(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    held = await canary(cluster)
    await cluster.tell(held, 1, STARTED)
    cluster.later(30)
    await cluster.beat("w2")
    await cluster.reap()
    await open_up(cluster, "w1")
    await judge(cluster)
    quarantine = await held_back(cluster)
    assert quarantine is not None and quarantine.canaries == 1


async def test_an_administrator_ends_it(cluster: Cluster):
    await caught(cluster)
    await workforce.resume(cluster.database, "w1", cluster.now)
    assert await held_back(cluster) is None
    assert await judge(cluster) == {}, "what was before does not count any more"
    await cluster.beat("w2", resources=Resources(64_000, 256_000, 0))
    await cluster.submit()
    assert await cluster.place() == 1


async def test_it_outlasts_a_new_process_and_ends_with_a_removal(cluster: Cluster):
    await caught(cluster)
    await cluster.beat("w1", instance="w1-b")
    assert await held_back(cluster) is not None
    await workforce.remove(cluster.database, "w1", cluster.now)
    await cluster.beat("w1", instance="w1-c")
    assert await held_back(cluster) is None


@pytest.mark.parametrize("how", ["drained", "lost"])
async def test_when_all_others_go_it_is_needed(cluster: Cluster, how: str, caplog: pytest.LogCaptureFixture):
    await caught(cluster)
    if how == "drained":
        await workforce.drain(cluster.database, "w2", cluster.now)
    else:
        cluster.later(30)
        await cluster.beat("w1")
        await cluster.reap()
    with caplog.at_level(logging.WARNING):
        assert (await judge(cluster))["readmitted"] == 1
    assert caplog.messages[-1:] == ["worker w1 takes runs again: there is no other one of its kind"]
    await cluster.submit()
    assert await cluster.place() == 1


async def test_a_run_that_is_tried_again_is_the_canary_rather_than_one_that_is_not(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    once, again = await cluster.submit(attempts=1), await cluster.submit(attempts=2)
    await cluster.place()
    assert (await cluster.handed("w1")).run_id == again
    assert (await cluster.handed("w2")).run_id == once


async def test_a_run_on_its_last_loss_is_not_tried_again(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    run_id = await cluster.submit(attempts=2)
    await cluster.ask("UPDATE runs SET infra_losses = 4 WHERE id = %s", run_id)
    await cluster.place()
    assert (await cluster.handed("w2")).run_id == run_id


async def test_where_there_is_no_other_room_the_canary_is_what_waits(cluster: Cluster):
    await caught(cluster)
    await pass_by(cluster, PAUSE_S)
    await cluster.beat("w2", resources=Resources(64_000, 256_000, 0))
    run_id = await cluster.submit(attempts=1)
    await cluster.place()
    assert (await cluster.handed("w1")).run_id == run_id


async def test_a_server_that_no_longer_leads_judges_nobody(cluster: Cluster):
    await work(cluster, "w2", *["completed"] * 10)
    await work(cluster, "w1", *["disk_full"] * 10)
    await cluster.ask("UPDATE leader SET epoch = epoch + 1")
    with pytest.raises(Deposed):
        await judge(cluster)
    assert await held_back(cluster) is None


async def test_another_leader_goes_on_from_the_same_rows(cluster: Cluster):
    await caught(cluster)
    await cluster.lead_anew()
    assert await judge(cluster) == {"judged": 1, "readmitted": 0, "quarantined": 0}
    await pass_by(cluster, PAUSE_S)
    await end(cluster, await canary(cluster), "completed")
    await cluster.lead_anew()
    assert (await judge(cluster))["readmitted"] == 1


async def test_what_ends_by_itself_after_a_while_leaves_nothing(cluster: Cluster):
    """Nothing is counted apart: once the runs are gone, so is what they said."""
    await work(cluster, "w2", *["completed"] * 10)
    await work(cluster, "w1", *["disk_full"] * 10)
    await cluster.ask("DELETE FROM runs")
    assert await judge(cluster) == {}


def test_the_window_is_longer_than_the_longest_pause():
    assert WITHIN >= LONGEST >= SHORTEST > timedelta(0)
