"""What people and programs outside the scheduler do to a run: cancel, retry, update, append."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from gyoza.control.append import append
from gyoza.control.query import attempts_of
from gyoza.control.update import Update, update
from gyoza.models.errors import AttemptIsLeased, Malformed, NotAllowedNow, Refusal, RunNotFound, StaleAttempt
from gyoza.models.lifecycle import EventType as E
from gyoza.policy.life import Happening

from .stage import COMPLETED, NOW, STARTED, Cluster, failed

NO_RUN = "01890000-0000-7000-8000-000000000000"


async def patch(cluster: Cluster, run_id: str, **wanted: Any) -> None:
    await update(cluster.database, run_id, Update(**wanted), cluster.now)


async def add(cluster: Cluster, run_id: str, event: Happening, attempt: int | None = None) -> None:
    await append(cluster.database, run_id, event, cluster.now, attempt=attempt)


async def test_cancel_answers_at_once_and_leaves_the_room_to_the_worker_until_it_is_settled(cluster: Cluster):
    held = await cluster.running()
    await cluster.cancel(held.run_id)
    run = await cluster.run(held.run_id)
    assert (run.state, run.reason, run.events[-1].type) == ("CANCELLED", "cancelled", "CANCELLED")
    assert bytes(run.events[-1].msg) == b'"Cancelled by user"'
    assert await cluster.slots_taken() == 1


async def test_a_run_that_waits_is_cancelled_and_nothing_has_to_be_settled(cluster: Cluster):
    run_id = await cluster.submit()
    await cluster.cancel(run_id)
    (attempt,) = await attempts_of(cluster.database, run_id)
    assert (attempt.state, attempt.finished_at, attempt.settled_at) == ("CANCELLED", NOW, NOW)


async def test_what_is_over_cannot_be_cancelled(cluster: Cluster):
    run_id = await cluster.submit()
    await cluster.cancel(run_id)
    with pytest.raises(NotAllowedNow, match="Run is already in terminal state CANCELLED"):
        await cluster.cancel(run_id)


async def test_a_retry_by_hand_goes_beyond_the_budget_and_to_the_end_of_the_queue(cluster: Cluster):
    held = await cluster.running(priority=0)
    await cluster.tell(held, 2, failed(), settled=True)
    cluster.later(100)
    await cluster.retry(held.run_id)
    run = await cluster.run(held.run_id)
    assert (run.state, run.current_attempt, run.user_failures, run.queue_at) == ("PENDING", 2, 1, cluster.now)
    assert (run.progress, run.outputs, run.reason) == (0, None, None)
    assert run.events[-1].type == "RETRIED"
    assert msgspec.json.decode(run.events[-1].payload) == {"force": True}


@pytest.mark.parametrize("state", ["PENDING", "ASSIGNED", "RUNNING", "COMPLETED"])
async def test_only_what_failed_or_was_cancelled_is_retried(cluster: Cluster, state: str):
    held = await cluster.assigned()
    steps = {"PENDING": [], "ASSIGNED": [], "RUNNING": [STARTED], "COMPLETED": [STARTED, COMPLETED]}[state]
    run_id = await cluster.submit() if state == "PENDING" else held.run_id
    await cluster.tell(held, 1, *steps)
    with pytest.raises(NotAllowedNow):
        await cluster.retry(run_id)
    assert await cluster.state(run_id) == (state, 1)


async def test_an_update_changes_state_outputs_and_priority_in_one(cluster: Cluster):
    run_id = await cluster.submit(priority=5)
    await patch(cluster, run_id, state="RUNNING", outputs={"y": 2}, priority=8)
    run = await cluster.run(run_id)
    assert (run.state, run.priority, bytes(run.outputs)) == ("RUNNING", 8, b'{"y":2}')
    assert run.queue_at == NOW - timedelta(hours=8)
    assert [bytes(entry.msg) for entry in run.events] == [b'"Set by update"']


async def test_an_update_that_is_refused_in_part_changes_nothing(cluster: Cluster):
    run_id = await cluster.submit()
    before = await cluster.run(run_id)
    with pytest.raises(NotAllowedNow):
        await patch(cluster, run_id, state="COMPLETED", outputs={"y": 2}, priority=8)
    assert await cluster.run(run_id) == before


@pytest.mark.parametrize("state", ["ASSIGNED", "DONE", "pending", ""])
async def test_a_state_that_cannot_be_set_is_refused(cluster: Cluster, state: str):
    run_id = await cluster.submit()
    with pytest.raises(NotAllowedNow, match=f"'{state}' cannot be set"):
        await patch(cluster, run_id, state=state)


async def test_the_same_state_again_is_no_event(cluster: Cluster):
    run_id = await cluster.submit()
    await patch(cluster, run_id, state="PENDING")
    assert await cluster.story(run_id) == []


async def test_outputs_and_priority_may_be_changed_after_the_end_and_write_no_event(cluster: Cluster):
    held = await cluster.running()
    await cluster.tell(held, 2, COMPLETED)
    await patch(cluster, held.run_id, outputs={"z": [1]}, priority=-3)
    run = await cluster.run(held.run_id)
    assert (run.state, bytes(run.outputs), run.priority, run.events_count) == ("COMPLETED", b'{"z":[1]}', -3, 3)


async def test_a_failure_set_by_an_update_is_not_retried_by_itself(cluster: Cluster):
    held = await cluster.running(attempts=3)
    await patch(cluster, held.run_id, state="FAILED")
    assert await cluster.state(held.run_id) == ("FAILED", 1)


async def test_a_failure_from_outside_is_retried_while_attempts_are_left(cluster: Cluster):
    run_id = await cluster.submit(attempts=2)
    for expected in (("PENDING", 2), ("FAILED", 2)):
        await add(cluster, run_id, STARTED)
        await add(cluster, run_id, Happening(E.FAILED, "oh"))
        assert await cluster.state(run_id) == expected
    assert (await cluster.run(run_id)).reason == "external"


async def test_what_a_worker_holds_is_not_reported_from_outside(cluster: Cluster):
    held = await cluster.running()
    with pytest.raises(AttemptIsLeased):
        await add(cluster, held.run_id, COMPLETED)
    await add(cluster, held.run_id, Happening(E.INFO, "hello"))
    assert await cluster.story(held.run_id) == ["ASSIGNED 1", "STARTED 1", "INFO 1"]


async def test_an_event_may_name_its_attempt(cluster: Cluster):
    run_id = await cluster.submit()
    with pytest.raises(StaleAttempt):
        await add(cluster, run_id, STARTED, attempt=2)
    await add(cluster, run_id, STARTED, attempt=1)


@pytest.mark.parametrize("percent", [True, 1.0, -1, 101, "5", None])
async def test_progress_that_is_no_percentage_is_refused(cluster: Cluster, percent: Any):
    run_id = await cluster.submit()
    await add(cluster, run_id, STARTED)
    with pytest.raises(Malformed):
        await add(cluster, run_id, Happening(E.PROGRESS, percent))
    assert await cluster.story(run_id) == ["STARTED 1"]


async def test_every_attempt_keeps_its_own_outputs_and_progress(cluster: Cluster):
    run_id = await cluster.submit(attempts=2)
    await add(cluster, run_id, STARTED)
    await add(cluster, run_id, Happening(E.PROGRESS, 30))
    await patch(cluster, run_id, outputs={"half": True})
    await add(cluster, run_id, Happening(E.FAILED))
    first, second = await attempts_of(cluster.database, run_id)
    assert (first.state, first.progress, bytes(first.outputs or b"")) == ("FAILED", 30, b'{"half":true}')
    assert (second.state, second.progress, second.outputs) == ("PENDING", 0, None)
    assert [entry.type for entry in first.events] == ["STARTED", "PROGRESS", "FAILED"]
    assert [entry.type for entry in second.events] == ["RETRIED"]


@pytest.mark.parametrize("run_id", [NO_RUN, "no run id", ""])
async def test_what_is_no_run_is_not_found(cluster: Cluster, run_id: str):
    asked: list[Any] = [
        cluster.cancel(run_id), cluster.retry(run_id), patch(cluster, run_id, priority=1), add(cluster, run_id, STARTED)
    ]  # fmt: skip
    for each in asked:
        with pytest.raises(RunNotFound):
            await each


async def test_a_refusal_says_no_and_writes_nothing(cluster: Cluster):
    run_id = await cluster.submit()
    before = await cluster.run(run_id)
    for event in (
        COMPLETED,
        Happening(E.PROGRESS, 5),
        Happening(E.FAILED),
        Happening(E.ASSIGNED),
        Happening(E.RETRIED),
    ):
        with pytest.raises(Refusal):
            await add(cluster, run_id, event)
    assert await cluster.run(run_id) == before
