"""What workers report: judged one by one, in order, and never twice."""

from dataclasses import replace

import pytest

from gyoza.control import workforce
from gyoza.models.lifecycle import EventType as E
from gyoza.models.run import ExecutionSummary
from gyoza.policy.life import Happening

from .stage import COMPLETED, STARTED, Cluster, failed, said

UNKNOWN = "01890000-0000-7000-8000-000000000000"


async def test_a_run_is_started_progresses_and_completes(cluster: Cluster):
    held = await cluster.assigned()
    await cluster.tell(held, 1, Happening(E.STARTED, payload={"worker_id": "w1", "gpu_id": 3}))
    await cluster.tell(held, 2, Happening(E.PROGRESS, 40))
    cluster.later(2)
    await cluster.tell(held, 3, COMPLETED, summary=ExecutionSummary(peak_ram_mb=12), settled=True)
    run = await cluster.run(held.run_id)
    assert (run.state, run.progress, bytes(run.outputs)) == ("COMPLETED", 100, b'{"y":1}')
    assert run.execution_summary == ExecutionSummary(duration_ms=2000, worker_id="w1", gpu_id=3, peak_ram_mb=12)
    assert await cluster.story(held.run_id) == ["ASSIGNED 1", "STARTED 1", "PROGRESS 1", "COMPLETED 1"]


async def test_only_the_worker_that_holds_an_attempt_reports_on_it_whatever_lease_another_has(cluster: Cluster):
    held = await cluster.assigned()
    refused = await cluster.tell_all(said(held, 1, STARTED, worker="w2"), said(held, 2, settled=True, worker="w2"))
    assert [result.code for result in refused] == ["lease_lost", "lease_lost"]
    assert await cluster.state(held.run_id) == ("ASSIGNED", 1)
    assert (await cluster.tell(held, 1, STARTED)).ok


async def test_several_reports_on_one_run_in_one_request_keep_their_order_and_numbers(cluster: Cluster):
    held = await cluster.assigned()
    progress = [said(held, 2 + n, Happening(E.PROGRESS, n), Happening(E.INFO, f"step {n}")) for n in range(10)]
    results = await cluster.tell_all(said(held, 1, STARTED), *progress, said(held, 99, COMPLETED))
    assert all(result.ok for result in results)
    run = await cluster.run(held.run_id)
    assert [entry.id for entry in run.events] == list(range(23))
    assert [bytes(entry.msg).decode() for entry in run.events][2:-1] == [
        text for n in range(10) for text in (str(n), f'"step {n}"')
    ]


async def test_one_that_is_refused_fails_no_neighbour(cluster: Cluster):
    one, other = await cluster.assigned(), await cluster.assigned()
    results = await cluster.tell_all(
        said(one, 1, STARTED),
        replace(said(one, 2, STARTED), lease="guessed"),
        said(other, 1, COMPLETED),
        replace(said(one, 1), run_id=UNKNOWN),
        replace(said(one, 1), run_id="no run id"),
        replace(said(one, 1), attempt=7),
        said(one, 2, COMPLETED),
        said(other, 1, STARTED),
    )
    assert [result.code for result in results] == [
        None, "lease_lost", "transition_refused", "run_not_found", "run_not_found", "attempt_not_found", None, None
    ]  # fmt: skip
    assert await cluster.state(one.run_id) == ("COMPLETED", 1)
    assert await cluster.state(other.run_id) == ("RUNNING", 1)


async def test_every_result_says_the_state_that_its_run_is_in_now(cluster: Cluster):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    refused, unknown = await cluster.tell_all(said(held, 2, COMPLETED), replace(said(held, 2), run_id=UNKNOWN))
    assert (refused.ok, refused.code, refused.state) == (False, "lease_lost", "CANCELLED")
    assert (unknown.ok, unknown.state) == (False, None)


async def test_a_report_is_applied_whole_or_not_at_all(cluster: Cluster):
    held = await cluster.running()
    result = await cluster.tell(held, 2, Happening(E.PROGRESS, 10), Happening(E.PROGRESS, 1000), COMPLETED)
    assert (result.ok, result.code) == (False, "malformed")
    assert await cluster.story(held.run_id) == ["ASSIGNED 1", "STARTED 1"]
    assert (await cluster.run(held.run_id)).progress == 0


@pytest.mark.parametrize("ending", [COMPLETED, failed("invalid_output")], ids=["completed", "failed"])
async def test_a_repeated_report_answers_ok_and_changes_nothing(cluster: Cluster, ending: Happening):
    held = await cluster.running()
    first = await cluster.tell(held, 2, ending, settled=True)
    before = await cluster.run(held.run_id)
    cluster.later(5)
    assert await cluster.tell(held, 2, ending, settled=True) == first
    assert await cluster.run(held.run_id) == before


async def test_a_repeated_report_answers_ok_also_when_the_run_went_on_to_another_attempt(cluster: Cluster):
    held = await cluster.running(attempts=2)
    ending = said(held, 2, failed(), settled=True)
    assert [result.ok for result in await cluster.tell_all(ending)] == [True]
    assert await cluster.state(held.run_id) == ("PENDING", 2)
    assert [result.ok for result in await cluster.tell_all(ending)] == [True]
    assert await cluster.state(held.run_id) == ("PENDING", 2)


async def test_an_older_report_that_was_overtaken_changes_nothing(cluster: Cluster):
    held = await cluster.running()
    await cluster.tell(held, 5, Happening(E.PROGRESS, 50))
    assert (await cluster.tell(held, 4, Happening(E.PROGRESS, 10))).ok
    assert (await cluster.run(held.run_id)).progress == 50


async def test_a_late_report_on_an_attempt_that_the_run_left_behind_changes_nothing(cluster: Cluster):
    held = await cluster.running()
    cluster.later(60)
    await cluster.reap()
    await cluster.beat("w2")
    await cluster.place()
    story = await cluster.story(held.run_id)
    result = await cluster.tell(held, 2, COMPLETED)
    assert (result.ok, result.code, result.state) == (False, "lease_lost", "ASSIGNED")
    assert await cluster.story(held.run_id) == story


async def test_it_is_told_that_an_attempt_is_settled_also_after_the_run_moved_on(cluster: Cluster):
    held = await cluster.running(attempts=2)
    await cluster.tell(held, 2, failed())
    assert await cluster.slots_taken() == 1
    assert (await cluster.tell(held, 3, settled=True)).ok
    assert await cluster.slots_taken() == 0


async def test_what_is_declined_goes_back_to_the_queue_and_costs_nothing(cluster: Cluster):
    held = await cluster.assigned()
    assert (await cluster.tell(held, 1, declined=True)).state == "PENDING"
    run = await cluster.run(held.run_id)
    assert (run.current_attempt, run.user_failures, run.infra_losses) == (2, 0, 0)
    assert await cluster.slots_taken() == 0
    assert await cluster.story(held.run_id) == ["ASSIGNED 1", "FAILED 1", "RETRIED 2"]


async def test_a_failure_is_tried_again_until_the_attempts_are_used_up(cluster: Cluster):
    held = await cluster.running(attempts=2)
    await cluster.tell(held, 2, failed(), settled=True)
    await cluster.place()
    again = await cluster.handed()
    await cluster.tell(again, 1, STARTED, failed("oom_killed"), settled=True)
    run = await cluster.run(held.run_id)
    assert (run.state, run.reason, run.user_failures, run.current_attempt) == ("FAILED", "oom_killed", 2, 2)
    assert await cluster.story(held.run_id) == [
        "ASSIGNED 1", "STARTED 1", "FAILED 1", "RETRIED 2", "ASSIGNED 2", "STARTED 2", "FAILED 2"
    ]  # fmt: skip


async def test_summaries_of_several_reports_add_up(cluster: Cluster):
    held = await cluster.running()
    await cluster.tell(held, 2, summary=ExecutionSummary(image_digest="sha256:abc"))
    await cluster.tell(held, 3, failed(), summary=ExecutionSummary(exit_code=3, cpu_s=0.5))
    summary = (await cluster.run(held.run_id)).execution_summary
    assert (summary.image_digest, summary.exit_code, summary.cpu_s) == ("sha256:abc", 3, 0.5)


async def test_what_is_settled_before_it_is_over_is_not_settled(cluster: Cluster):
    held = await cluster.running()
    assert (await cluster.tell(held, 2, settled=True)).ok
    assert await cluster.slots_taken() == 1


async def test_no_reports_are_no_results(cluster: Cluster):
    assert await cluster.tell_all() == []


async def test_a_take_up_that_comes_too_late_is_refused(cluster: Cluster):
    """Else the worker would start what was cancelled, or what runs elsewhere by now."""
    cancelled, moved_on = await cluster.assigned(), await cluster.assigned()
    await cluster.cancel(cancelled.run_id)
    await workforce.drain(cluster.database, "w1", cluster.now)
    results = await cluster.tell_all(said(cancelled, 1), said(moved_on, 1))
    assert [(result.ok, result.code) for result in results] == [(False, "lease_lost")] * 2
    settled = await cluster.tell_all(said(cancelled, 2, settled=True), said(moved_on, 2, settled=True))
    assert all(result.ok for result in settled)
