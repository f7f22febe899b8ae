"""What stays in a state for too long is ended by the leader: in the queue, unconfirmed, or running."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gyoza.control import leadership, reap
from gyoza.control.append import append
from gyoza.control.query import attempts_of
from gyoza.control.submit import AdHoc, Options
from gyoza.control.update import Update, update
from gyoza.models.definition import RetryPolicy, Timeouts
from gyoza.models.errors import OpRunLockedException, StaleAttempt
from gyoza.models.lifecycle import EventType as E
from gyoza.policy.deadline import PATIENCE_S
from gyoza.policy.life import Happening
from gyoza.store.attempts import Assigned

from .stage import COMPLETED, NOW, STARTED, Cluster, failed
from .test_submit import ADD, ask_for

QUEUE_S, START_S, RUN_S = 100.0, 20.0, 50.0
LIMITS = {"queue_s": QUEUE_S, "start_s": START_S, "run_s": RUN_S}


async def ask(cluster: Cluster, *, attempts: int = 1, backoff_s: float = 0, **options: Any) -> str:
    policy = {"max_attempts": attempts, "backoff_s": backoff_s}
    wanted = AdHoc("busybox", options=Options(timeouts=LIMITS, retry_policy=policy, **options))
    return (await cluster.ask_for(wanted)).id


async def handed(cluster: Cluster, worker: str = "w1", **how: Any) -> Assigned:
    await cluster.beat(worker)
    await ask(cluster, **how)
    await cluster.place()
    return await cluster.handed(worker)


async def expired(cluster: Cluster, seconds: float, *holding: Assigned) -> int:
    """How many runs end so much later, while w1 is heard all along."""
    await cluster.keep_alive("w1", seconds, [(each.run_id, each.attempt) for each in holding])
    return (await cluster.reap())["expired"]


async def ending(cluster: Cluster, run_id: str) -> tuple[str, str | None, int]:
    run = await cluster.run(run_id)
    return run.state.value, run.reason, run.current_attempt


async def test_a_run_that_waits_too_long_fails_for_good(cluster: Cluster):
    run_id = await ask(cluster, attempts=9)
    assert await expired(cluster, QUEUE_S - 0.001) == 0
    assert await expired(cluster, 0.001) == 1
    assert await ending(cluster, run_id) == ("FAILED", "queue_timeout", 1)
    assert await cluster.story(run_id) == ["FAILED 1"]
    run = await cluster.run(run_id)
    assert (run.user_failures, run.infra_losses) == (0, 0)
    assert run.execution_summary.error_message == "It waited in the queue for longer than its queue_s"


async def test_a_delayed_run_waits_from_when_it_is_due(cluster: Cluster):
    run_id = await ask(cluster, run_at=NOW + timedelta(seconds=1000))
    assert await expired(cluster, 1000 + QUEUE_S - 1) == 0
    assert await expired(cluster, 1) == 1
    assert await ending(cluster, run_id) == ("FAILED", "queue_timeout", 1)


async def test_a_run_whose_time_lay_in_the_past_waits_from_when_it_was_asked_for(cluster: Cluster):
    await ask(cluster, run_at=NOW - timedelta(days=1))
    assert await expired(cluster, QUEUE_S - 1) == 0
    assert await expired(cluster, 1) == 1


async def test_every_attempt_waits_anew_and_not_while_it_pauses(cluster: Cluster):
    held = await handed(cluster, attempts=2, backoff_s=30)
    assert await expired(cluster, 90, held) == 0
    await cluster.tell(held, 1, failed(), settled=True)
    assert await expired(cluster, 30 + QUEUE_S - 1) == 0
    assert await expired(cluster, 1) == 1
    assert await ending(cluster, held.run_id) == ("FAILED", "queue_timeout", 2)


async def test_a_retry_by_hand_waits_anew(cluster: Cluster):
    run_id = await ask(cluster)
    await expired(cluster, QUEUE_S)
    await cluster.retry(run_id)
    assert await expired(cluster, QUEUE_S - 1) == 0
    assert await expired(cluster, 1) == 1
    assert await ending(cluster, run_id) == ("FAILED", "queue_timeout", 2)


async def test_what_is_placed_in_time_waits_no_more(cluster: Cluster):
    held = await handed(cluster)
    assert await expired(cluster, START_S - 1, held) == 0
    assert await expired(cluster, 10 * QUEUE_S, held) == 0
    assert await cluster.state(held.run_id) == ("ASSIGNED", 1)


async def test_an_assignment_without_a_word_goes_back_and_its_late_worker_is_refused(cluster: Cluster):
    held = await handed(cluster)
    assert await expired(cluster, START_S) == 1
    assert await ending(cluster, held.run_id) == ("PENDING", None, 2)
    first, _ = await attempts_of(cluster.database, held.run_id)
    assert (first.state, first.reason) == ("FAILED", "released")
    assert (await cluster.tell(held, 1, STARTED)).code == "lease_lost"


@pytest.mark.parametrize("word", ["heartbeat", "report"])
async def test_one_word_of_its_worker_is_enough(cluster: Cluster, word: str):
    held = await handed(cluster)
    if word == "heartbeat":
        await cluster.beat(holding=[(held.run_id, 1)])
    else:
        await cluster.tell(held, 1, Happening(E.INFO, "pulling the image"))
    assert await expired(cluster, 10 * START_S, held) == 0


async def test_without_a_worker_a_run_ends_exactly_when_its_time_is_over(cluster: Cluster):
    run_id = await ask(cluster, attempts=2)
    await append(cluster.database, run_id, STARTED, cluster.now)
    assert await expired(cluster, RUN_S - 0.001) == 0
    assert await expired(cluster, 0.001) == 1
    assert await cluster.story(run_id) == ["STARTED 1", "FAILED 1", "RETRIED 2"]
    await append(cluster.database, run_id, STARTED, cluster.now)
    assert await expired(cluster, RUN_S) == 1
    assert await ending(cluster, run_id) == ("FAILED", "run_timeout", 2)


async def test_what_a_worker_holds_is_ended_later_stopped_and_tried_again(cluster: Cluster):
    held = await handed(cluster, attempts=2)
    await cluster.tell(held, 1, STARTED)
    assert await expired(cluster, RUN_S + PATIENCE_S - 0.001, held) == 0
    assert await expired(cluster, 0.001, held) == 1
    assert await ending(cluster, held.run_id) == ("PENDING", None, 2)
    heard = await cluster.beat(holding=[(held.run_id, 1)])
    assert [(stop.run_id, stop.attempt, stop.reason) for stop in heard.stop] == [(held.run_id, 1, "run_timeout")]
    assert await cluster.slots_taken() == 1
    assert await cluster.place() == 0
    assert (await cluster.tell(held, 2, COMPLETED)).code == "lease_lost"
    assert (await cluster.tell(held, 3, settled=True)).ok
    assert await cluster.place() == 1
    assert (await cluster.handed()).attempt == 2


async def test_progress_prolongs_nothing(cluster: Cluster):
    run_id = await ask(cluster)
    await append(cluster.database, run_id, STARTED, cluster.now)
    cluster.later(RUN_S - 1)
    await append(cluster.database, run_id, Happening(E.PROGRESS, 99), cluster.now)
    await append(cluster.database, run_id, Happening(E.INFO, "nearly"), cluster.now)
    assert await expired(cluster, 1) == 1


async def test_an_ending_that_comes_after_the_server_s_is_refused(cluster: Cluster):
    run_id = await ask(cluster, attempts=1)
    await append(cluster.database, run_id, STARTED, cluster.now)
    await expired(cluster, RUN_S)
    with pytest.raises(OpRunLockedException):
        await append(cluster.database, run_id, COMPLETED, cluster.now)
    await cluster.retry(run_id)
    with pytest.raises(StaleAttempt):
        await append(cluster.database, run_id, COMPLETED, cluster.now, attempt=1)
    assert (await cluster.run(run_id)).outputs is None


async def test_a_state_that_is_set_by_hand_is_limited_too(cluster: Cluster):
    run_id = await ask(cluster)
    await update(cluster.database, run_id, Update(state="RUNNING"), cluster.now)
    assert await expired(cluster, RUN_S - 1) == 0
    assert await expired(cluster, 1) == 1
    await update(cluster.database, run_id, Update(state="PENDING"), cluster.now)
    assert await expired(cluster, QUEUE_S - 1) == 0
    assert await expired(cluster, 1) == 1


async def test_what_runs_by_hand_before_its_worker_was_heard_stays_limited(cluster: Cluster):
    held = await handed(cluster)
    await update(cluster.database, held.run_id, Update(state="RUNNING"), cluster.now)
    await cluster.beat(holding=[(held.run_id, 1)])
    assert await expired(cluster, RUN_S + PATIENCE_S, held) == 1


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_what_is_over_is_not_ended_again(cluster: Cluster, state: str):
    run_id = await ask(cluster)
    for step in ("RUNNING", state):
        await update(cluster.database, run_id, Update(state=step), cluster.now)
    assert await expired(cluster, 10 * QUEUE_S) == 0
    assert (await cluster.run(run_id)).state == state


async def test_a_crowd_is_ended_in_batches_the_oldest_first(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reap, "AT_ONCE", 2)
    asked: list[str] = []
    for _ in range(3):
        asked.append(await ask(cluster))
        cluster.later(1)
    assert await expired(cluster, QUEUE_S) == 2
    assert [(await cluster.run(run_id)).state for run_id in asked] == ["FAILED", "FAILED", "PENDING"]
    assert [await expired(cluster, 0) for _ in range(2)] == [1, 0]


async def test_a_deadline_is_kept_by_whoever_leads_then(cluster: Cluster):
    run_id = await ask(cluster)
    await cluster.ask("UPDATE leader SET expires_at = '-infinity'")
    before = cluster.epoch
    await cluster.lead()
    assert cluster.epoch > before
    cluster.later(QUEUE_S)
    with pytest.raises(leadership.Deposed):
        await reap.reap(cluster.database, before, cluster.pace, cluster.now)
    assert await expired(cluster, 0) == 1
    assert await ending(cluster, run_id) == ("FAILED", "queue_timeout", 1)


async def test_a_run_may_lift_a_limit_of_its_definition_or_set_another(cluster: Cluster):
    limited = Timeouts(queue_s=QUEUE_S, run_s=RUN_S)
    await cluster.deploy(replace(ADD, timeouts=limited, retry_policy=RetryPolicy()))
    inherits = await ask_for(cluster, b'{"a": 1}')
    lifts = await ask_for(cluster, b'{"a": 1}', options=Options(timeouts={"queue_s": None}))
    sets = await ask_for(cluster, b'{"a": 1}', options=Options(timeouts={"queue_s": 2 * QUEUE_S}))
    assert [each.timeouts.queue_s for each in (inherits, lifts, sets)] == [QUEUE_S, None, 2 * QUEUE_S]
    assert [each.timeouts.run_s for each in (inherits, lifts, sets)] == [RUN_S] * 3
    assert await expired(cluster, QUEUE_S) == 1
    assert await expired(cluster, QUEUE_S) == 1
    assert await cluster.state(lifts.id) == ("PENDING", 1)
