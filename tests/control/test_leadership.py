"""Two servers on one database behave as one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any

import pytest

from gyoza.control import leadership
from gyoza.control.leadership import Deposed
from gyoza.server import loops
from gyoza.server.loops import Duty, Leading, lead
from gyoza.store import leader
from gyoza.store.bell import Bell
from gyoza.store.database import Database

from .stage import PACE, Cluster, Still, duties, turn


@pytest.fixture
async def servers(cluster: Cluster, stage_url: str) -> AsyncIterator[list[Leading]]:
    """Two servers, each with its own way to the database; nobody leads yet."""
    await vacate(cluster)
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(Database(stage_url, clock=Still())) for _ in range(2)]
        yield [Leading(database, PACE, f"server-{n}") for n, database in enumerate(databases)]


async def vacate(cluster: Cluster) -> None:
    """The lease of whoever leads has run out."""
    await cluster.ask("UPDATE leader SET expires_at = clock_timestamp() - interval '1 ms'")


async def placed_by(server: Leading) -> int:
    return (await turn(server)).get("placed", 0)


async def test_one_of_two_leads_and_the_other_places_nothing(cluster: Cluster, servers: list[Leading]):
    first, second = servers
    await cluster.beat()
    await cluster.submit()
    assert await placed_by(first) == 1
    await cluster.submit()
    assert await turn(second) == {}
    assert await placed_by(first) == 1


async def test_the_leader_stays_leader_by_renewing(servers: list[Leading]):
    first, second = servers
    await turn(first)
    epoch = first.epoch
    for _ in range(3):
        assert await turn(second) == {}
        await turn(first)
    assert first.epoch == epoch


async def test_whoever_comes_first_after_the_lease_ran_out_leads_and_the_old_leader_is_deposed(
    cluster: Cluster, servers: list[Leading]
):
    first, second = servers
    await turn(first)
    await cluster.beat()
    await vacate(cluster)
    await cluster.submit()
    assert await placed_by(second) == 1
    await cluster.submit()
    with pytest.raises(Deposed):
        await duties(first)
    assert await turn(first) == {}
    assert await placed_by(second) == 1


async def test_a_leader_that_resigns_is_followed_at_once(servers: list[Leading]):
    first, second = servers
    await turn(first)
    await first.resign()
    await turn(second)
    assert second.epoch is not None
    assert await turn(first) == {}


async def test_an_epoch_is_never_given_twice(cluster: Cluster):
    epochs: list[int | None] = []
    for n in range(5):
        await vacate(cluster)
        epochs += await asyncio.gather(*(leadership.hold(cluster.database, f"{n}-{m}", None) for m in range(4)))
    won = [epoch for epoch in epochs if epoch is not None]
    assert len(won) == len(set(won)) == 5


async def test_a_resigned_epoch_does_not_come_back(cluster: Cluster):
    await vacate(cluster)
    epoch = await leadership.hold(cluster.database, "a", None)
    assert epoch is not None
    await leadership.resign(cluster.database, epoch)
    assert await leadership.hold(cluster.database, "b", None) == epoch + 1
    await leadership.resign(cluster.database, epoch)
    assert await leadership.hold(cluster.database, "a", epoch) is None


async def test_two_servers_at_once_place_every_run_once(cluster: Cluster, servers: list[Leading]):
    """Turns of both run at the same time, and the leadership passes from one to the other in the midst of it."""
    await cluster.beat()

    async def turns(server: Leading) -> None:
        for _ in range(15):
            with suppress(Deposed):
                await turn(server)

    async def submits() -> list[str]:
        return [await cluster.submit() for _ in range(40)]

    async def unrest() -> None:
        for _ in range(10):
            await vacate(cluster)
            await asyncio.sleep(0)

    _, _, run_ids, _ = await asyncio.gather(*(turns(server) for server in servers), submits(), unrest())
    await vacate(cluster)
    await turn(servers[0])
    for run_id in run_ids:
        assert await cluster.story(run_id) == ["ASSIGNED 1"]


async def test_the_loops_of_two_servers_place_what_comes_and_one_follows_the_other(cluster: Cluster, stage_url: str):
    await vacate(cluster)
    await cluster.beat()
    async with looping(stage_url) as end_first, looping(stage_url):
        await everything_placed(cluster, [await cluster.submit() for _ in range(5)])
        await end_first()
        await everything_placed(cluster, [await cluster.submit() for _ in range(5)])


@asynccontextmanager
async def looping(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A server's loop; gives what ends it."""
    stopping = asyncio.Event()
    async with Database(url, clock=Still()) as database, Bell(url) as bell:
        loop = asyncio.create_task(lead(database, bell, PACE, stopping))

        async def end() -> None:
            stopping.set()
            bell.close()
            await asyncio.wait_for(loop, 5)

        try:
            yield end
        finally:
            await end()


async def everything_placed(cluster: Cluster, run_ids: list[str]) -> None:
    async def all_placed() -> bool:
        return all([await cluster.story(run_id) == ["ASSIGNED 1"] for run_id in run_ids])

    deadline = monotonic() + 8
    while not await all_placed():
        assert monotonic() < deadline, "was not placed in time"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("part", ["hold", "do"])
async def test_a_loop_outlives_whatever_goes_wrong_in_a_turn(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
):
    await vacate(cluster)
    await cluster.beat()
    done, failures = getattr(Leading, part), iter([RuntimeError("bad turn"), None])

    async def failing(self: Leading, *duty: Duty) -> Any:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        return await done(self, *duty)

    monkeypatch.setattr(Leading, part, failing)
    async with looping(cluster.database.url):
        await everything_placed(cluster, [await cluster.submit()])
    assert "bad turn" in caplog.text


async def test_a_slow_duty_keeps_no_other_waiting(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    hung, go_on = asyncio.Event(), asyncio.Event()

    async def hang(leading: Leading, epoch: int) -> dict[str, int]:
        hung.set()
        await go_on.wait()
        return {}

    monkeypatch.setattr(loops, "DUTIES", (Duty("slow", hang, "-"), *loops.DUTIES))
    await vacate(cluster)
    await cluster.beat()
    async with looping(cluster.database.url):
        await asyncio.wait_for(hung.wait(), 5)
        await everything_placed(cluster, [await cluster.submit() for _ in range(3)])
        go_on.set()


async def test_duties_that_overlap_without_a_break_do_not_keep_the_leader_from_renewing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    """At any moment some turn holds the leader's row, which renewing has to change."""
    monkeypatch.setattr(leader, "LEASE_S", 1)
    monkeypatch.setattr(loops, "TICK_S", 0.2)
    epochs: list[int] = []

    async def busy(leading: Leading, epoch: int) -> dict[str, int]:
        async with leading.database.connection() as connection, connection.transaction():
            await leader.check(connection, epoch)
            await connection.execute("SELECT pg_sleep(0.1)")
        epochs.append(epoch)
        return {"done": 1}

    many = tuple(Duty(f"busy {n}", busy, "-") for n in range(6))
    monkeypatch.setattr(loops, "DUTIES", many)
    await vacate(cluster)
    deadline = monotonic() + 20
    async with looping(cluster.database.url):
        while len(epochs) < 120:  # 2 s at least, which is two leases
            assert monotonic() < deadline
            await asyncio.sleep(0.05)
    assert len(set(epochs)) == 1


async def test_a_duty_that_finds_itself_deposed_ends_no_newer_leadership_of_its_own_server(
    cluster: Cluster, servers: list[Leading]
):
    first, _ = servers
    await first.hold()
    before = first.epoch

    async def late(leading: Leading, epoch: int) -> dict[str, int]:
        await vacate(cluster)
        await leading.hold()
        raise Deposed

    with pytest.raises(Deposed):
        await first.do(Duty("late", late, "-"))
    assert first.epoch not in (None, before)
    assert first.elected.is_set()
