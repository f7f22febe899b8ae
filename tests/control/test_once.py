"""Asking twice is asking once; and whose asking it is."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from gyoza.control.once import KEPT_FOR, Asked
from gyoza.control.replay import replay
from gyoza.control.submit import AdHoc, submit
from gyoza.control.tidy import tidy
from gyoza.models.errors import IdempotencyKeyReused
from gyoza.models.run import OpRun
from gyoza.store.idempotency import Reply

from .stage import Cluster


def shown(made: Sequence[OpRun]) -> Reply:
    return Reply(201, made[0].id.encode())


async def ask(cluster: Cluster, owner: str = "me", key: str = "a-key", what: bytes = b"this") -> Reply:
    return await submit(cluster.database, AdHoc("busybox"), owner, shown, cluster.now, Asked(owner, key, what))


async def runs(cluster: Cluster) -> int:
    return (await cluster.ask("SELECT count(*) FROM runs"))[0][0]


async def test_the_same_request_gets_the_answer_that_was_given(cluster: Cluster):
    first, again = await ask(cluster), await ask(cluster)
    assert (first.again, again) == (False, Reply(first.status, first.body, again=True))
    assert await runs(cluster) == 1


async def test_keys_of_different_callers_do_not_meet(cluster: Cluster):
    replies = [await ask(cluster, owner) for owner in ("me", "you", "me", "you")]
    assert [reply.again for reply in replies] == [False, False, True, True]
    assert replies[0].body == replies[2].body != replies[1].body == replies[3].body
    assert await runs(cluster) == 2


async def test_the_same_key_for_something_else_is_refused_and_makes_nothing(cluster: Cluster):
    await ask(cluster)
    with pytest.raises(IdempotencyKeyReused, match="'a-key'"):
        await ask(cluster, what=b"that")
    assert await runs(cluster) == 1


async def test_a_key_is_free_when_its_time_is_over(cluster: Cluster):
    await ask(cluster)
    cluster.now += KEPT_FOR - timedelta(microseconds=1)
    assert (await ask(cluster)).again
    cluster.now += timedelta(microseconds=1)
    assert not (await ask(cluster, what=b"that")).again
    cluster.now += KEPT_FOR - timedelta(microseconds=1)
    assert (await ask(cluster, what=b"that")).again
    assert await runs(cluster) == 2


async def test_what_is_over_is_forgotten_and_nothing_else(cluster: Cluster):
    await ask(cluster)
    cluster.later(60)
    await ask(cluster, key="later")
    cluster.now += KEPT_FOR - timedelta(seconds=60)
    counts = await tidy(cluster.database, cluster.epoch, None, lambda run_id: None, cluster.now)
    assert counts["answers"] == 1
    assert await cluster.ask("SELECT key FROM idempotency") == [("later",)]


async def test_a_replay_is_whose_who_asks_for_it(cluster: Cluster):
    run_id = await cluster.submit()
    reply = await replay(cluster.database, run_id, {}, "somebody else", shown, cluster.now)
    again = await cluster.run(reply.body.decode())
    assert (again.submitted_by, again.replay_of) == ("somebody else", run_id)
    assert (await cluster.run(run_id)).submitted_by == "test"
