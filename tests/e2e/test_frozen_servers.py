"""Of two servers on one database one is frozen and woken: what it does then overwrites no truth, and tells no lie."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from api.actors import Json, Worker, event, get, history, in_state, named, refused, say, submit, told, until

from .stage import CALM, Command, Stage
from .twins import Twins

PAUSE_AT_COMMIT = """
    CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER pause AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (NEW.type = 'CANCELLED') EXECUTE FUNCTION pause();
"""
LEASE_S = 3


@pytest.fixture
def twins(tmp_path: Path, database_url: str) -> Iterator[Twins]:
    stage = Stage(tmp_path, **{**CALM, "GYOZA_LEASE_S": str(LEASE_S)})
    try:
        yield Twins(stage, database_url)
    finally:
        left = stage.end()
    assert left == []


@pytest.fixture
async def leader(twins: Twins) -> AsyncIterator[httpx.AsyncClient]:
    async with twins.client_of(twins.leader) as client:
        yield client


@pytest.fixture
async def other(twins: Twins) -> AsyncIterator[httpx.AsyncClient]:
    async with twins.client_of(twins.other) as client:
        yield client


async def story(api: httpx.AsyncClient, run: Json) -> list[str]:
    rows = await history(api, run)
    assert [row["id"] for row in rows] == list(range(len(rows)))
    return [f"{row['type']} {row['attempt']}" for row in rows]


async def completed(api: httpx.AsyncClient, run: Json) -> httpx.Response:
    return await say(api, run, "COMPLETED", payload={"outputs": {"by": "the one that is awake"}})


async def test_a_cancel_that_a_frozen_server_had_not_read_comes_too_late(
    twins: Twins, leader: httpx.AsyncClient, other: httpx.AsyncClient
):
    run = await in_state(other, "RUNNING")
    twins.other.freeze()
    cancel = asyncio.create_task(other.post(f"/runs/{run['id']}/cancel"))
    told(await completed(leader, run))
    twins.other.wake()
    assert refused(await cancel, 400)["detail"] == "Run is already in terminal state COMPLETED"
    assert await story(other, run) == ["STARTED 1", "COMPLETED 1"]


async def test_a_cancel_of_a_server_that_froze_while_it_held_the_run_is_given_up(
    twins: Twins, leader: httpx.AsyncClient, other: httpx.AsyncClient
):
    run = await in_state(other, "RUNNING")
    with twins.locked("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", run["id"]):
        cancel = asyncio.create_task(other.post(f"/runs/{run['id']}/cancel"))
        await until(twins.one_waits)
        twins.other.freeze()
    told(await completed(leader, run))
    twins.other.wake()
    refused(await cancel, 503, "database_unavailable")
    assert await story(other, run) == ["STARTED 1", "COMPLETED 1"]
    assert (await get(other, run))["outputs"] == {"by": "the one that is awake"}


async def test_a_cancel_of_a_server_that_froze_when_it_committed_holds(
    twins: Twins, leader: httpx.AsyncClient, other: httpx.AsyncClient
):
    with psycopg.connect(twins.database_url) as connection:
        connection.execute(PAUSE_AT_COMMIT)
    run = await in_state(other, "RUNNING")
    with twins.locked("SELECT pg_advisory_xact_lock(1)"):
        cancel = asyncio.create_task(other.post(f"/runs/{run['id']}/cancel"))
        await until(twins.one_waits)
        twins.other.freeze()
    refused(await completed(leader, run), 400, "run_locked")
    twins.other.wake()
    assert told(await cancel)["state"] == (await get(leader, run))["state"] == "CANCELLED"
    assert await story(leader, run) == ["STARTED 1", "CANCELLED 1"]


async def test_a_report_that_a_frozen_server_had_not_read_comes_too_late_when_its_worker_was_given_up(
    twins: Twins, leader: httpx.AsyncClient, other: httpx.AsyncClient
):
    lost, heard = Worker(other, "lost"), Worker(leader, "heard")
    await lost.registered()
    run = await submit(other)
    first = await lost.assignment()
    told(await lost.send(lost.report_of(first, event("STARTED"))))
    twins.other.freeze()
    late = asyncio.create_task(lost.send(lost.report_of(first, event("COMPLETED", outputs={"by": "lost"}))))

    async def second() -> Json | None:
        told(await heard.beat())
        return next(iter(told(await heard.claim())["assignments"]), None)

    again = await until(second, within_s=25)
    assert (await heard.report(again, event("STARTED"), event("COMPLETED", outputs={"by": "heard"}), settled=True))[
        "ok"
    ]
    twins.other.wake()
    refused(await late, 409, "not_registered")
    assert told(await lost.beat(first))["stop"] == [{**named(first), "reason": "worker_lost"}]
    assert (await get(other, run))["outputs"] == {"by": "heard"}
    ended = ["ASSIGNED 1", "STARTED 1", "FAILED 1", "RETRIED 2", "ASSIGNED 2", "STARTED 2", "COMPLETED 2"]
    assert await story(other, run) == ended


async def test_a_leader_that_froze_in_the_middle_of_placing_is_replaced_and_places_nothing_when_it_wakes(
    twins: Twins, leader: httpx.AsyncClient, other: httpx.AsyncClient
):
    worker, run = Worker(other, "w1"), await submit(leader)
    with twins.locked("SELECT 1 FROM runs WHERE id = %s FOR UPDATE", run["id"]):
        await worker.registered()
        await until(twins.one_waits)
        twins.leader.freeze()
    held = await worker.assignment()
    assert twins.leader_pid() == twins.other.pid
    assert (await worker.report(held, event("STARTED")))["ok"]
    twins.leader.wake()
    after = await submit(leader)
    assert (await worker.assignment(held))["run_id"] == after["id"]
    assert (await worker.report(held, event("COMPLETED"), settled=True))["ok"]
    assert await story(leader, run) == ["ASSIGNED 1", "STARTED 1", "COMPLETED 1"]
    assert await story(leader, after) == ["ASSIGNED 1"]
    assert twins.leader_pid() == twins.other.pid
    assert "Traceback" not in twins.leader.said


class Crowd:
    """Clients of both servers who write and end runs, and write down what they were answered with success."""

    def __init__(self, run: Json):
        self.run = run
        self.written: list[str] = []
        self.races: list[tuple[str, list[tuple[str, str]]]] = []
        self.is_over = False

    async def goes_on(self) -> None:
        """Until a good deal more was answered."""
        written, races = len(self.written) + 50, len(self.races) + 5

        async def is_enough() -> bool:
            return len(self.written) >= written and len(self.races) >= races

        await until(is_enough, within_s=30)

    async def write(self, api: httpx.AsyncClient, name: str) -> None:
        """Events of one run, each of them once."""
        number = 0
        while not self.is_over:
            number += 1
            if await answered(say(api, self.run, "INFO", f"{name}.{number}")):
                self.written.append(f"{name}.{number}")

    async def race(self, one: httpx.AsyncClient, two: httpx.AsyncClient) -> None:
        """Runs that are ended from both sides, in every way."""
        while not self.is_over:
            run = await answered(submit(one))
            if run and await answered(say(one, run, "STARTED")):
                ends = [(way, api) for way in ("COMPLETED", "FAILED", "CANCELLED") for api in (one, two)]
                asked = (say(api, run, way, f"by {n}") for n, (way, api) in enumerate(ends))
                answers = await asyncio.gather(*map(answered, asked))
                won = [(way, f"by {n}") for n, (way, _) in enumerate(ends) if answers[n]]
                self.races.append((run["id"], won))


async def answered(asked: Any) -> Any:
    """What was answered with success; None for a refusal, an error, or no answer."""
    try:
        answer = await asked
    except (httpx.HTTPError, AssertionError):
        return None
    return answer if isinstance(answer, dict) or answer.is_success else None


@pytest.mark.parametrize("who", ["leader", "other"])
async def test_whatever_is_answered_around_a_freeze_is_true(twins: Twins, who: str):
    frozen, awake = (twins.leader, twins.other) if who == "leader" else (twins.other, twins.leader)
    async with twins.client_of(frozen) as patient, twins.client_of(frozen, 1) as hasty, twins.client_of(awake) as calm:
        crowd = Crowd(await in_state(calm, "RUNNING"))
        writers = [crowd.write(api, f"{n}") for n, api in enumerate([patient, hasty, calm, calm] * 4)]
        racers = [crowd.race(*pair) for pair in ((calm, patient), (calm, hasty), (patient, calm), (calm, calm))]
        async with asyncio.TaskGroup() as tasks:
            for task in (*writers, *racers):
                tasks.create_task(task)
            await crowd.goes_on()
            frozen.freeze()
            await until(lambda: leads(twins, awake), within_s=30)
            await crowd.goes_on()
            frozen.wake()
            await crowd.goes_on()
            crowd.is_over = True
        await assert_true(calm, crowd)
    assert "Traceback" not in frozen.said + awake.said


async def leads(twins: Twins, server: Command) -> bool:
    return twins.leader_pid() == server.pid


async def assert_true(api: httpx.AsyncClient, crowd: Crowd) -> None:
    assert sorted(set(crowd.written)) == sorted(crowd.written)
    said = [row["msg"] for row in await all_events(api, crowd.run)][1:]
    assert len(said) == len(set(said)) and set(said) >= set(crowd.written)
    for run_id, won in crowd.races:
        rows = await history(api, {"id": run_id})
        endings = [(row["type"], row["msg"]) for row in rows if row["type"] != "STARTED"]
        assert len(endings) <= 1 and len(won) <= 1
        assert set(won) <= set(endings)


async def all_events(api: httpx.AsyncClient, run: Json) -> list[Json]:
    found: list[Json] = []
    more = True
    while more:
        page = told(await api.get(f"/runs/{run['id']}/events", params={"after": len(found) - 1}))
        found, more = found + page["events"], page["has_more"]
    assert [row["id"] for row in found] == list(range(len(found)))
    return found
