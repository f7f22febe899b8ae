"""A worker among others: it takes work, loses it, leaves, is replaced, and outlives its server's absences."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest

from gyoza.client.errors import Conflict, Unauthorized
from gyoza.client.http import AsyncGyozaClient
from gyoza.policy.liveness import Pace
from gyoza.server.process import one_process
from gyoza.server.settings import Settings
from gyoza.worker import work
from gyoza.worker.adoption import left_in
from gyoza.worker.reports import Lease
from gyoza.worker.spool import records
from gyoza.worker.sweep import sweeps

from .cluster import KEY, Cluster, Line, working

STUBBORN = "trap '' TERM; echo ready > $GYOZA_IO_DIR/ready; while :; do sleep 0.05; done"
WAITING = "echo ready > $GYOZA_IO_DIR/ready; until [ -e $GATE ]; do sleep 0.02; done"


def is_beat(request: httpx.Request) -> bool:
    return request.method == "PUT"


def is_report(request: httpx.Request) -> bool:
    return request.url.path.endswith("/reports")


async def ready(cluster: Cluster, run_id: str) -> None:
    attempts = cluster.place.folder / "attempts"
    await cluster.until(lambda: bool(list(attempts.glob(f"{run_id}-*/io/ready"))), "the program to run")
    await cluster.state(run_id, "RUNNING")


async def ended(agent: asyncio.Task[None]) -> None:
    """Within the time that a test has; raises what ended it."""
    await asyncio.wait({agent}, timeout=15)
    assert agent.done(), "the agent went on"
    agent.result()


# Many at once


async def test_many_runs_at_once(cluster: Cluster) -> None:
    text = '{"n": %s}'
    runs = await asyncio.gather(*(cluster.run(f"echo '{text % n}' > $GYOZA_IO_DIR/outputs.json") for n in range(20)))
    assert [run["outputs"] for run in runs] == [{"n": n} for n in range(20)]


async def test_several_large_outputs_at_once(cluster: Cluster, line: Line) -> None:
    big = "(io / 'outputs.json').write_text(json.dumps({'x': 'y' * (4 * 2**20 - 20)}))"
    runs = await asyncio.gather(*(cluster.python(big) for _ in range(6)))
    assert {run["state"] for run in runs} == {"COMPLETED"}
    assert all(len(run["outputs"]["x"]) == 4 * 2**20 - 20 for run in runs)
    assert max(len(body) for _, _, body in line.asked) < 16 * 2**20


# The lease


async def test_a_lease_that_is_lost_stops_the_program(cluster: Cluster, line: Line) -> None:
    """An operator removes the worker: the run goes on elsewhere, which here is the same worker, registered anew."""
    run_id = await cluster.submit("[ $GYOZA_ATTEMPT = 2 ] || { echo r > $GYOZA_IO_DIR/ready; sleep 60; }")
    await ready(cluster, run_id)
    await cluster.user.remove_worker("one")
    run = await cluster.ended(run_id)
    assert await cluster.attempts(run_id) == [("FAILED", "worker_lost"), ("COMPLETED", None)]
    assert (run["infra_losses"], run["user_failures"]) == (1, 0)
    ends = [event for batch in line.reports for each in batch if each["attempt"] == 1 for event in each["events"]]
    assert [event["type"] for event in ends] == ["STARTED"]


async def test_a_new_process_takes_over_and_the_old_one_ends(
    cluster: Cluster, user: AsyncGyozaClient, tmp_path: Path
) -> None:
    run_id = await cluster.submit("[ $GYOZA_ATTEMPT = 2 ] || { echo r > $GYOZA_IO_DIR/ready; sleep 60; }")
    await ready(cluster, run_id)
    async with working(cluster_line(cluster), user, tmp_path / "new", host=cluster.identity.host_id) as newer:
        with pytest.raises(Conflict, match="A newer process has taken over worker 'one'") as caught:
            await ended(cluster.running)
        assert caught.value.code == "superseded"
        assert cluster.leftovers == []
        run = await newer.ended(run_id)
        assert (run["state"], run["infra_losses"]) == ("COMPLETED", 1)


def cluster_line(cluster: Cluster) -> httpx.AsyncBaseTransport:
    return line_of(cluster.place.client)


def line_of(client: AsyncGyozaClient) -> httpx.AsyncBaseTransport:
    return client._http._transport  # pyright: ignore[reportPrivateUsage]


async def test_a_name_in_use_on_another_host_is_refused(cluster: Cluster, line: Line, tmp_path: Path) -> None:
    async with working(line, cluster.user, tmp_path / "other", host="elsewhere") as other:
        with pytest.raises(Conflict, match="give this worker another name"):
            await ended(other.running)
    assert (await cluster.run())["state"] == "COMPLETED"


async def test_a_key_that_is_not_known_any_more_ends_the_worker(cluster: Cluster, line: Line) -> None:
    run_id = await cluster.submit(STUBBORN)
    await ready(cluster, run_id)
    cluster.place.client._http.headers["X-API-Key"] = "another"  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(Unauthorized):
        await ended(cluster.running)
    assert cluster.leftovers == []


# Leaving


async def test_an_idle_worker_leaves_at_once_and_is_forgotten(cluster: Cluster) -> None:
    cluster.agent.leave()
    await asyncio.wait_for(ended(cluster.running), 8)
    assert await cluster.user.list_workers() == []


async def test_what_runs_may_end_before_its_worker_leaves(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run_id = await cluster.submit(WAITING, env={"GATE": str(gate)})
    await ready(cluster, run_id)
    cluster.agent.leave()
    assert not cluster.agent.is_idle
    gate.touch()
    assert (await cluster.ended(run_id))["state"] == "COMPLETED"
    await ended(cluster.running)


async def test_a_worker_that_leaves_is_given_nothing_new(cluster: Cluster, tmp_path: Path, line: Line) -> None:
    gate = tmp_path / "gate"
    run_id = await cluster.submit(WAITING, env={"GATE": str(gate)})
    await ready(cluster, run_id)
    cluster.agent.leave()

    async def has_no_room() -> bool:
        return (await cluster.user.get_worker("one"))["resources"]["slots"] == 0

    await cluster.until(has_no_room, "the server to hear of it")
    later = await cluster.submit()
    gate.touch()
    await ended(cluster.running)
    assert (await cluster.user.get_run(later))["state"] == "PENDING"
    assert len(await cluster.attempts(later)) == 1


async def test_what_is_stopped_by_leaving_goes_back_to_the_queue_at_no_cost(
    cluster: Cluster, user: AsyncGyozaClient, tmp_path: Path
) -> None:
    run_id = await cluster.submit("[ $GYOZA_ATTEMPT = 2 ] || { echo r > $GYOZA_IO_DIR/ready; sleep 60; }")
    await ready(cluster, run_id)
    await cluster.leave()
    run = await user.get_run(run_id)
    assert (run["state"], run["user_failures"], run["infra_losses"]) == ("PENDING", 0, 0)
    async with working(cluster_line(cluster), user, tmp_path / "next", name="two") as other:
        assert (await other.ended(run_id))["state"] == "COMPLETED"
        assert await other.attempts(run_id) == [("FAILED", "drained"), ("COMPLETED", None)]


async def test_a_worker_that_leaves_has_little_patience(
    cluster: Cluster, user: AsyncGyozaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LEAVING_GRACE_S", 0.2)
    run_id = await cluster.submit(STUBBORN, execution={"cancel_grace_s": 3600})
    await ready(cluster, run_id)
    cluster.agent.leave()
    cluster.agent.stop_all()
    cluster.agent.stop_all()
    await asyncio.wait_for(ended(cluster.running), 10)
    assert (await user.get_attempts(run_id))[0]["execution_summary"]["signal"] == 9


async def test_what_the_server_stopped_with_long_patience_does_not_hold_a_leaving_worker(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.agent.LEAVING_GRACE_S", -1.0)
    run_id = await cluster.submit(STUBBORN, execution={"cancel_grace_s": 3600})
    await ready(cluster, run_id)
    await cluster.user.cancel_run(run_id)
    cluster.agent.leave()
    cluster.agent.stop_all()
    await asyncio.wait_for(ended(cluster.running), 15)
    assert cluster.leftovers == []


async def test_a_run_that_is_cancelled_while_its_worker_leaves_stays_cancelled(cluster: Cluster) -> None:
    run_id = await cluster.submit(STUBBORN, execution={"cancel_grace_s": 0.5})
    await ready(cluster, run_id)
    cluster.agent.leave()
    cluster.agent.stop_all()
    await cluster.user.cancel_run(run_id)
    await ended(cluster.running)
    assert (await cluster.user.get_run(run_id))["state"] == "CANCELLED"
    assert (await cluster.user.get_attempts(run_id))[0]["settled_at"]


async def test_what_arrives_while_leaving_is_declined_at_no_cost(cluster: Cluster, line: Line, tmp_path: Path) -> None:
    """The heartbeat that says so is late: the server still believes that this worker takes work."""
    gate = tmp_path / "gate"
    first = await cluster.submit(WAITING, env={"GATE": str(gate)})
    await ready(cluster, first)
    line.hold = is_beat
    cluster.agent.leave()
    await line.held.wait()
    later = await cluster.submit()

    async def was_declined() -> bool:
        return ("FAILED", "declined") in await cluster.attempts(later)

    await cluster.until(was_declined, "the assignment to be declined")
    line.hold = lambda request: False
    line.go_on.set()
    gate.touch()
    await ended(cluster.running)
    run = await cluster.user.get_run(later)
    assert (run["user_failures"], run["infra_losses"], run["state"]) == (0, 0, "PENDING")
    assert "STARTED" not in [kind for kind, _ in await cluster.told(later)]


async def test_a_heartbeat_under_way_does_not_hide_that_the_worker_leaves(
    cluster: Cluster, line: Line, tmp_path: Path
) -> None:
    run_id = await cluster.submit(WAITING, env={"GATE": str(tmp_path / "gate")})
    await ready(cluster, run_id)
    line.hold = is_beat
    await line.held.wait()
    cluster.agent.leave()
    line.hold = lambda request: False
    line.go_on.set()

    async def has_no_room() -> bool:
        return (await cluster.user.get_worker("one"))["resources"]["slots"] == 0

    async with asyncio.timeout(0.8):
        await cluster.until(has_no_room, "the server to hear of it")
    (tmp_path / "gate").touch()
    await ended(cluster.running)


# The server away


async def test_a_worker_can_leave_though_its_server_is_away(
    cluster: Cluster, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LEAVING_GRACE_S", 0.2)
    monkeypatch.setattr("gyoza.worker.agent.LEAVING_GRACE_S", 0.2)
    monkeypatch.setattr("gyoza.worker.agent._LAST_WORDS_S", 0.5)
    run_id = await cluster.submit(STUBBORN)
    await ready(cluster, run_id)
    line.is_cut = True
    cluster.agent.leave()
    cluster.agent.stop_all()
    await asyncio.wait_for(ended(cluster.running), 8)
    assert cluster.leftovers == []
    line.is_cut = False


async def test_what_ends_while_the_server_is_away_is_told_once_and_in_order(
    cluster: Cluster, line: Line, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    events = "".join(
        f'echo \'{{"type": "INFO", "msg": "{n}"}}\' >> $GYOZA_IO_DIR/events.ndjson; sleep 0.08; ' for n in range(4)
    )
    run_id = await cluster.submit(f"{WAITING}; {events}", env={"GATE": str(gate)})
    await ready(cluster, run_id)
    await cluster.state(run_id, "RUNNING")
    line.is_cut = True
    gate.touch()
    await cluster.until(lambda: cluster.leftovers == [], "the attempt to be over")
    assert (await cluster.user.get_run(run_id))["state"] == "RUNNING"
    line.is_cut = False
    assert (await cluster.ended(run_id))["state"] == "COMPLETED"
    told = await cluster.told(run_id)
    assert told[1:] == [("INFO", "0"), ("INFO", "1"), ("INFO", "2"), ("INFO", "3"), ("COMPLETED", "Completed")]


async def test_events_wait_in_their_file_while_the_server_is_away(cluster: Cluster, line: Line) -> None:
    """One report of them is under way, and no more: they go together as soon as it is judged."""
    say = 'echo \'{"type": "INFO", "msg": "n"}\' >> $GYOZA_IO_DIR/events.ndjson'
    run_id = await cluster.submit(f"{say}; for n in 1 2 3 4 5 6 7 8; do sleep 0.07; {say}; done")
    await cluster.state(run_id, "RUNNING")
    line.hold = is_report
    await cluster.until(lambda: cluster.leftovers == [], "the attempt to be over")
    line.hold = lambda request: False
    line.go_on.set()
    await cluster.ended(run_id)
    said = [each for batch in line.reports for each in batch if "INFO" in [event["type"] for event in each["events"]]]
    assert sum(len(each["events"]) for each in said) == 9
    assert len(said) <= 4


async def test_an_answer_that_was_lost_changes_nothing_twice(cluster: Cluster, line: Line) -> None:
    """The server applied the reports, but its answer never came."""
    real, lost = line._inner.handle_async_request, list[str]()  # pyright: ignore[reportPrivateUsage]

    async def forgetful(request: httpx.Request) -> httpx.Response:
        answer = await real(request)
        if is_report(request) and len(lost) < 3:
            lost.append(request.url.path)
            raise httpx.ReadError("the answer is lost", request=request)
        return answer

    line._inner.handle_async_request = forgetful  # type: ignore[method-assign]
    run = await cluster.run('echo \'{"type": "INFO", "msg": "one"}\' >> $GYOZA_IO_DIR/events.ndjson')
    kinds = [kind for kind, _ in await cluster.told(run["id"])]
    assert (len(lost), kinds) == (3, ["STARTED", "INFO", "COMPLETED"])


class Server:
    """A server on a real port, that can be stopped and started again over the same database."""

    def __init__(self, database_url: str, folder: Path, lease_s: float = 30):
        self._database_url = database_url
        self._settings = Settings(data_dir=folder, pace=Pace(heartbeat_s=0.5, lease_s=lease_s), log_level="error")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def up(self) -> AsyncGenerator[None]:
        stopping, ready = asyncio.Event(), asyncio.Event()
        with socket.create_server(("127.0.0.1", self._port)) as listener:
            serving = one_process(self._settings, self._database_url, KEY, listener, stopping, ready.set)
            task = asyncio.create_task(serving)
            await asyncio.wait_for(ready.wait(), 15)
            try:
                yield
            finally:
                stopping.set()
                await task


@pytest.fixture
async def port(database_url: str, tmp_path: Path, quiet_loop: None) -> AsyncIterator[Server]:
    yield Server(database_url, tmp_path / "data")


async def test_a_restarted_server_hears_what_happened_meanwhile(port: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with AsyncGyozaClient(port.url, KEY) as user:
        async with port.up(), asyncio.timeout(20):
            starting = working(None, user, tmp_path / "worker", url=port.url)
            cluster = await starting.__aenter__()
            run_id = await cluster.submit(WAITING, env={"GATE": str(gate)})
            await ready(cluster, run_id)
        gate.touch()
        await cluster.until(lambda: cluster.leftovers == [], "the attempt to be over")
        async with port.up():
            assert (await cluster.ended(run_id))["state"] == "COMPLETED"
            assert [kind for kind, _ in await cluster.told(run_id)] == ["STARTED", "COMPLETED"]
            assert (await cluster.run())["state"] == "COMPLETED"
            await starting.__aexit__(None, None, None)


async def test_a_worker_waits_for_a_server_that_is_not_there_yet(port: Server, tmp_path: Path) -> None:
    async with AsyncGyozaClient(port.url, KEY) as user:

        async def first() -> None:
            async with working(None, user, tmp_path / "worker", url=port.url) as cluster:
                assert (await cluster.run())["state"] == "COMPLETED"

        using = asyncio.create_task(first())
        await asyncio.sleep(0.2)
        async with port.up():
            await asyncio.wait_for(using, 15)


async def test_what_never_reached_a_worker_that_left_costs_nothing(cluster: Cluster, line: Line) -> None:
    """Its claims are held up: it was handed work and never heard of it."""
    line.hold = lambda request: request.url.path.endswith("/claim")
    await cluster.run()  # what it hears of this ends the claim that was under way
    await line.held.wait()
    run_id = await cluster.submit()
    await cluster.state(run_id, "ASSIGNED")
    cluster.agent.leave()
    await ended(cluster.running)
    assert await cluster.attempts(run_id) == [("FAILED", "released"), ("PENDING", None)]
    assert (await cluster.user.get_run(run_id))["infra_losses"] == 0


async def test_an_assignment_that_cannot_be_read_costs_its_attempt_and_not_the_worker(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a server of another version."""
    real = work.Assignment._of

    def puzzled(lease: Lease, slices: dict[str, msgspec.Raw]) -> work.Assignment:
        if b"77" in bytes(slices["timeouts"]):
            raise KeyError("a member of tomorrow")
        return real(lease, slices)

    monkeypatch.setattr(work.Assignment, "_of", staticmethod(puzzled))
    run = await cluster.run(timeouts={"run_s": 77})
    assert (run["state"], run["reason"], run["infra_losses"]) == ("FAILED", "start_failed", 5)
    assert "cannot read the assignment" in run["execution_summary"]["error_message"]
    assert (await cluster.run())["state"] == "COMPLETED"


async def test_no_goodbye_is_said_while_something_runs(
    cluster: Cluster, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go to another worker while it still runs here."""
    monkeypatch.setattr("gyoza.worker.agent.LEAVING_GRACE_S", -10.0)
    run_id = await cluster.submit(STUBBORN)
    await ready(cluster, run_id)
    cluster.agent.leave()
    cluster.agent.stop_all()
    await asyncio.wait_for(ended(cluster.running), 10)
    assert not [path for method, path, _ in line.asked if method == "DELETE"]


async def test_nothing_is_said_after_goodbye(cluster: Cluster, line: Line) -> None:
    """A heartbeat would register the worker anew, for nobody."""
    await cluster.run()
    await cluster.leave()
    assert [method for method, _, _ in line.asked][-1] == "DELETE"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(404, text="default backend - 404"),
        lambda: httpx.Response(403, html="<p>Forbidden</p>"),
        lambda: httpx.Response(429, json={"message": "too many requests"}),
        lambda: httpx.Response(200, html="<p>We are back soon</p>"),
    ],
    ids=["404", "403", "429", "a page"],
)
async def test_what_a_proxy_says_while_the_server_restarts_ends_nothing(
    cluster: Cluster, line: Line, answer: Callable[[], httpx.Response]
) -> None:
    run_id = await cluster.submit(WAITING, env={"GATE": str(cluster.place.folder / "gate")})
    await ready(cluster, run_id)
    seen = list[str]()

    def instead(request: httpx.Request) -> httpx.Response:
        seen.append("beat" if is_beat(request) else request.url.path.rpartition("/")[2])
        return answer()

    line.instead = instead
    (cluster.place.folder / "gate").touch()
    await cluster.until(lambda: {"beat", "reports"} <= set(seen), "everything to be answered by the proxy")
    line.instead = lambda request: None
    run = await cluster.ended(run_id)
    assert (run["state"], run["current_attempt"], run["infra_losses"]) == ("COMPLETED", 1, 0)


# Cut off

TWICE = "[ $GYOZA_ATTEMPT = 2 ] || { echo r > $GYOZA_IO_DIR/ready; sleep 60; }"
STOPS = {"on_server_lost": "stop", "server_lost_s": 3}


async def test_what_must_not_run_without_its_server_is_stopped_and_goes_back_at_no_cost(
    database_url: str, tmp_path: Path, quiet_loop: None
) -> None:
    port = Server(database_url, tmp_path / "data", lease_s=2)
    async with AsyncGyozaClient(port.url, KEY) as user:
        async with port.up(), asyncio.timeout(20):
            starting = working(None, user, tmp_path / "worker", url=port.url)
            cluster = await starting.__aenter__()
            stops, goes_on = await cluster.submit(TWICE, execution=STOPS), await cluster.submit(TWICE)
            await ready(cluster, stops)
            await ready(cluster, goes_on)
        folders = cluster.place.folder / "attempts"
        await cluster.until(lambda: not (folders / f"{stops}-1" / "io").exists(), "the one to be stopped")
        assert (folders / f"{goes_on}-1" / "io").exists()
        async with port.up():
            run = await cluster.ended(stops)
            assert await cluster.attempts(stops) == [("FAILED", "drained"), ("COMPLETED", None)]
            assert (run["user_failures"], run["infra_losses"]) == (0, 0)
            failed = [event for event in await cluster.events(stops) if event["type"] == "FAILED"]
            assert [event["msg"] for event in failed] == [
                "The server was not heard for 3 s (execution.on_server_lost is 'stop')"
            ]
            assert await cluster.attempts(goes_on) == [("RUNNING", None)]
            await cluster.cancelled(goes_on)
            await starting.__aexit__(None, None, None)


async def test_what_went_on_elsewhere_meanwhile_is_stopped_when_the_server_is_heard_again(
    cluster: Cluster, line: Line
) -> None:
    run_id = await cluster.submit(TWICE)
    await ready(cluster, run_id)
    line.is_cut = True

    async def is_lost() -> bool:
        return (await cluster.attempts(run_id))[0] == ("FAILED", "worker_lost")

    await cluster.until(is_lost, "the worker to be evicted")
    assert cluster.leftovers != [] and (await cluster.user.get_attempts(run_id))[0]["settled_at"] is None
    line.is_cut = False
    run = await cluster.ended(run_id)
    assert await cluster.attempts(run_id) == [("FAILED", "worker_lost"), ("COMPLETED", None)]
    assert (run["state"], run["infra_losses"]) == ("COMPLETED", 1)


# What is left behind


async def test_nothing_is_kept_of_what_was_told(cluster: Cluster) -> None:
    await cluster.run()
    await cluster.until(lambda: cluster.agent.is_idle, "the worker to be idle")
    assert list(cluster.place.attempts.iterdir()) == []


async def test_what_was_not_started_yet_is_begun_again_as_the_same_attempt(
    cluster: Cluster, line: Line, user: AsyncGyozaClient, tmp_path: Path
) -> None:
    """Its worker is killed while it fetches the bundle: a copy of what is on disk just then is all that is left."""
    line.hold = lambda request: request.url.path.startswith("/files/")
    run_id = await cluster.submit("echo '{\"x\": 1}' > $GYOZA_IO_DIR/outputs.json")
    await line.held.wait()
    shutil.copytree(cluster.place.attempts, tmp_path / "new" / "attempts")
    left = left_in(tmp_path / "new" / "attempts")
    async with working(line_of(user), user, tmp_path / "new", host=cluster.identity.host_id, left=left) as newer:
        run = await newer.ended(run_id)
        assert (run["outputs"], run["current_attempt"], run["infra_losses"]) == ({"x": 1}, 1, 0)
        assert [kind for kind, _ in await newer.told(run_id)] == ["STARTED", "COMPLETED"]
        line.go_on.set()
        with pytest.raises(Conflict, match="A newer process has taken over"):
            await ended(cluster.running)


@pytest.mark.parametrize("was_told", [True, False], ids=["told", "known"])
async def test_an_ending_that_was_known_is_told_by_the_next_process_as_it_was_written(
    cluster: Cluster, line: Line, user: AsyncGyozaClient, tmp_path: Path, was_told: bool
) -> None:
    """Killed before the server heard it, or before it was a report: when all else of the attempt was gone already."""
    program = 'echo \'{"x": 1.10, "big": 1e300}\' > $GYOZA_IO_DIR/outputs.json'
    run_id = await cluster.submit(f"{WAITING}; {program}", env={"GATE": str(tmp_path / "gate")})
    await ready(cluster, run_id)
    line.hold = is_report
    (tmp_path / "gate").touch()
    await cluster.until(lambda: cluster.leftovers == [], "the attempt to be over")
    await line.held.wait()
    shutil.copytree(cluster.place.attempts, tmp_path / "new" / "attempts")
    spool = tmp_path / "new" / "attempts" / f"{run_id}-1" / "spool"
    *_, before, end = [0, *(end for _, end in records(spool.read_bytes()))]
    spool.write_bytes(spool.read_bytes()[: end if was_told else before])
    left = left_in(tmp_path / "new" / "attempts")
    async with working(line_of(user), user, tmp_path / "new", host=cluster.identity.host_id, left=left) as newer:
        run = await newer.ended(run_id)
        assert (run["outputs"], run["current_attempt"], run["infra_losses"]) == ({"x": 1.1, "big": 1e300}, 1, 0)
        assert run["execution_summary"]["exit_code"] == 0
        assert [kind for kind, _ in await newer.told(run_id)] == ["STARTED", "COMPLETED"]
        line.go_on.set()
        with pytest.raises(Conflict, match="A newer process has taken over"):
            await ended(cluster.running)


async def test_what_nobody_works_on_is_swept_now_and_then_and_what_runs_is_not(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, orphan = tmp_path / "gate", cluster.place.attempts / f"{uuid4()}-1"
    run_id = await cluster.submit(WAITING, env={"GATE": str(gate)})
    await ready(cluster, run_id)
    (orphan / "io").mkdir(parents=True)
    marks = {"GYOZA_OWNER": cluster.owner.mark, "GYOZA_RUN_ID": "gone", "GYOZA_ATTEMPT": "1"}
    left = await asyncio.create_subprocess_exec("sleep", "600", env={**os.environ, **marks})
    strange = await asyncio.create_subprocess_exec(
        "sleep", "600", env={**os.environ, **marks, "GYOZA_OWNER": f"{cluster.owner.mark}-other"}
    )
    monkeypatch.setattr("gyoza.worker.sweep.EVERY_S", 0.05)
    sweeping = asyncio.create_task(sweeps(cluster.place, cluster.agent.works_on))
    assert await asyncio.wait_for(left.wait(), 20) == -signal.SIGKILL
    await cluster.until(lambda: not orphan.exists(), "the folder to go")
    sweeping.cancel()
    gate.touch()
    assert (await cluster.ended(run_id))["current_attempt"] == 1
    assert strange.returncode is None
    strange.kill()
    await strange.wait()
