"""Workers that are killed and come back: what they left goes on where it is, and is told as if nothing had been."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from gyoza.worker.engines.dockerd import owned
from gyoza.worker.spool import Spool
from gyoza.worker.work import Begun

from .conftest import containing, hiring
from .stage import Command, Stage, until

SMALL = {"cpu": 0.1, "ram_mb": 64}
Hire = Callable[..., Command]


class Talker:
    """An op that says numbers until its gate is opened, or its worker's folder is asked to; then it ends as it must."""

    def __init__(self, stage: Stage, name: str, ends: str = "exit 0", **more: Any):
        said = '"{\\"type\\": \\"INFO\\", \\"msg\\": \\"$n\\"}"'
        program = (
            f'n=0; until [ -e "$GYOZA_IO_DIR/gate" ]; do echo {said} >>"$GYOZA_IO_DIR/events.ndjson"; '
            'echo "line $n"; n=$((n + 1)); sleep 0.02; done; echo "{\\"said\\": $n}" >"$GYOZA_IO_DIR/outputs.json"; '
            + ends
        )
        self._stage = stage
        self.op = stage.op(name, program, constraints=SMALL, **more)

    def start(self) -> str:
        (run_id,) = self._stage.submit(self.op)
        self._stage.reaches(run_id, "RUNNING", within_s=60)
        self.goes_on(run_id)
        return run_id

    def io(self, run_id: str) -> Path:
        (found,) = self._stage.data.glob(f"workers/*/attempts/{run_id}-*/io")
        return found

    def open(self, run_id: str) -> None:
        (self.io(run_id) / "gate").touch()

    def goes_on(self, run_id: str, lines: int = 5) -> None:
        """It says some more."""
        path = self.io(run_id) / "events.ndjson"

        def count() -> int:
            return len(path.read_bytes().splitlines()) if path.exists() else 0

        before = count()
        until(lambda: count() >= before + lines, "the op goes on")


@pytest.fixture(params=["docker", "process"])
def runtime(request: pytest.FixtureRequest) -> str:
    return request.param


PATIENT = {"GYOZA_HEARTBEAT_S": "0.5", "GYOZA_LEASE_S": "120"}
"""Whoever is killed here has time to come back."""


@pytest.fixture(scope="module")
async def contained(
    tmp_path_factory: pytest.TempPathFactory, made_data: Path, docker: aiodocker.Docker
) -> AsyncIterator[Stage]:
    async for stage in containing(Stage(tmp_path_factory.mktemp("return"), **PATIENT), made_data, docker):
        yield stage


@pytest.fixture
def hire(contained: Stage) -> Iterator[Hire]:
    yield from hiring(contained)


def infos(stage: Stage, run_id: str) -> Sequence[str]:
    """What it said, over as many pages as that takes."""
    found: list[str] = []
    after, more = None, True
    while more:
        page = stage.client.get_events(run_id, after=after)
        found += [event["msg"] for event in page["events"] if event["type"] == "INFO"]
        more, after = page["has_more"], page["events"][-1]["id"]
    return found


def assert_as_if_nothing_had_been(stage: Stage, run_id: str, *, was_heard: bool = True) -> None:
    """One attempt, one start, one end, and everything it said and wrote, once and in its order."""
    run = stage.ended(run_id, within_s=60)
    assert (run["state"], run["current_attempt"]) == ("COMPLETED", 1), (run, stage.client.get_attempts(run_id))
    assert (run["user_failures"], run["infra_losses"]) == (0, 0)
    assert infos(stage, run_id) == [str(n) for n in range(run["outputs"]["said"])]
    if was_heard:
        assert stage.client.get_logs(run_id) == "".join(f"line {n}\n" for n in range(run["outputs"]["said"])).encode()
    kinds = [event["type"] for event in stage.client.get_events(run_id)["events"] if event["type"] != "INFO"]
    assert kinds[:2] == ["ASSIGNED", "STARTED"] and set(kinds[2:]) <= {"COMPLETED"}
    assert_gone(stage, run_id)


def assert_gone(stage: Stage, run_id: str) -> None:
    """Settled, and nothing kept of it."""
    attempts = lambda: stage.client.get_attempts(run_id)  # noqa: E731
    until(lambda: all(each["settled_at"] for each in attempts() if each["state"] != "PENDING"), "it is settled")
    until(lambda: not list(stage.data.glob(f"workers/*/attempts/{run_id}-*")), "nothing is kept of it")


async def ended(docker: aiodocker.Docker, run_id: str) -> None:
    """Its container has ended by itself, and is there still."""
    container = docker.containers.container((await owned(docker, {"gyoza.run": run_id}))[0])
    await container.wait(timeout=40)


@pytest.mark.docker
def test_a_container_goes_on_while_its_worker_is_killed_and_comes_back_again_and_again(contained: Stage, hire: Hire):
    worker = hire("again")
    talker = Talker(contained, "again")
    run_id = talker.start()
    for _ in range(4):
        worker.kill()
        talker.goes_on(run_id)
        worker = hire("again")
        talker.goes_on(run_id)
    talker.open(run_id)
    assert_as_if_nothing_had_been(contained, run_id)


@pytest.mark.docker
async def test_what_ended_while_its_worker_was_dead_is_told_as_it_ended(
    contained: Stage, hire: Hire, docker: aiodocker.Docker
):
    worker = hire("late")
    well, badly = Talker(contained, "well"), Talker(contained, "badly", "exit 3")
    run_id, failed_id = well.start(), badly.start()
    worker.kill()
    for talker, each in ((well, run_id), (badly, failed_id)):
        talker.open(each)
        await ended(docker, each)
    hire("late")
    assert_as_if_nothing_had_been(contained, run_id)
    failed = contained.ended(failed_id)
    assert (failed["reason"], failed["execution_summary"]["exit_code"]) == ("op_error", 3)
    assert (failed["current_attempt"], failed["user_failures"], failed["infra_losses"]) == (1, 1, 0)
    assert_gone(contained, failed_id)
    assert [await owned(docker, {"gyoza.run": each}) for each in (run_id, failed_id)] == [[], []]


@pytest.mark.docker
async def test_a_run_cancelled_while_its_worker_was_dead_is_stopped_when_that_is_back_and_settled_then(
    contained: Stage, hire: Hire, docker: aiodocker.Docker
):
    worker = hire("absent")
    run_id = Talker(contained, "unwanted").start()
    worker.kill()
    contained.client.cancel_run(run_id)
    (attempt,) = contained.client.get_attempts(run_id)
    assert (attempt["state"], attempt["settled_at"]) == ("CANCELLED", None)
    hire("absent")
    assert_gone(contained, run_id)
    assert await owned(docker, {"gyoza.run": run_id}) == []
    assert contained.story(run_id)[-1] == "CANCELLED 1"


@pytest.mark.docker
async def test_a_worker_that_comes_back_leaves_its_neighbours_alone(
    contained: Stage, hire: Hire, docker: aiodocker.Docker
):
    talker = Talker(contained, "neighbours")
    left = hire("left-hand", "--slots", "1")
    first = talker.start()
    right = hire("right-hand", "--slots", "1")
    second = talker.start()
    left.kill()
    right.kill()
    hire("left-hand", "--slots", "1")
    talker.open(first)
    assert_as_if_nothing_had_been(contained, first)
    assert await owned(docker, {"gyoza.run": second}) == [f"gyoza-{second}-1"]
    talker.goes_on(second)
    hire("right-hand", "--slots", "1")
    talker.open(second)
    assert_as_if_nothing_had_been(contained, second)


STUBBORN = 'trap "" TERM; while :; do sleep 0.05; done'


def spool_of(stage: Stage, run_id: str) -> Path:
    (found,) = stage.data.glob(f"workers/*/attempts/{run_id}-1/spool")
    return found


@pytest.mark.docker
async def test_what_a_worker_was_stopping_when_it_was_killed_ends_as_it_was_meant_to(
    contained: Stage, hire: Hire, docker: aiodocker.Docker
):
    """Else a program that its worker ended by a signal would count as one that failed."""
    worker = hire("leaving")
    (run_id,) = contained.submit(contained.op("stays", f'[ "$GYOZA_ATTEMPT" = 2 ] || {{ {STUBBORN}; }}'))
    contained.reaches(run_id, "RUNNING", within_s=60)
    worker.send(signal.SIGTERM)
    until(lambda: b'"stopped":["drained"' in spool_of(contained, run_id).read_bytes(), "it is being stopped")
    worker.kill()
    hire("leaving")
    run = contained.ended(run_id)
    assert [each["reason"] for each in contained.client.get_attempts(run_id)] == ["drained", None]
    assert (run["state"], run["user_failures"], run["infra_losses"]) == ("COMPLETED", 0, 0)


@pytest.mark.docker
async def test_what_ended_with_its_machine_is_lost_and_no_failure_of_its_op(
    contained: Stage, hire: Hire, docker: aiodocker.Docker
):
    worker = hire("crashed")
    (run_id,) = contained.submit(contained.op("crashes", f'[ "$GYOZA_ATTEMPT" = 2 ] || {{ {STUBBORN}; }}'))
    contained.reaches(run_id, "RUNNING", within_s=60)
    worker.kill()
    spool = Spool.read(spool_of(contained, run_id))
    begun = spool.recall("begun", Begun)
    assert begun is not None and begun.boot
    spool.keep(begun=replace(begun, boot="the one before"))
    await docker.containers.container(f"gyoza-{run_id}-1").kill()
    hire("crashed")
    run = contained.ended(run_id)
    assert [each["reason"] for each in contained.client.get_attempts(run_id)] == ["worker_lost", None]
    assert (run["state"], run["user_failures"], run["infra_losses"]) == ("COMPLETED", 0, 1)
    assert_gone(contained, run_id)


@pytest.fixture
async def alone(tmp_path: Path, made_data: Path, docker: aiodocker.Docker) -> AsyncIterator[Stage]:
    """A stage whose server may be killed."""
    async for stage in containing(Stage(tmp_path, **PATIENT), made_data, docker):
        yield stage


@pytest.mark.docker
async def test_a_worker_comes_back_before_its_server_does(alone: Stage, docker: aiodocker.Docker):
    worker = alone.worker("early")
    talker = Talker(alone, "nobody-there")
    run_id, ended_id = talker.start(), talker.start()
    alone.serving.kill()
    worker.kill()
    talker.open(ended_id)
    await ended(docker, ended_id)
    back = alone.run("worker", "start", "--name", "early")
    back.says("Waiting for the server")
    alone.server()
    back.says("Worker early works for")
    talker.open(run_id)
    for each in (run_id, ended_id):
        assert_as_if_nothing_had_been(alone, each)


@pytest.mark.docker
async def test_a_worker_that_comes_back_too_late_removes_what_went_on_elsewhere(alone: Stage, docker: aiodocker.Docker):
    alone.serving.stop()
    alone.server(GYOZA_LEASE_S="3")
    late = alone.worker("late", "--slots", "1")
    talker = Talker(alone, "elsewhere")
    run_id = talker.start()
    late.kill()
    alone.worker("other")
    until(lambda: alone.client.get_run(run_id)["current_attempt"] == 2, "it goes on elsewhere")
    assert alone.client.get_attempts(run_id)[0]["settled_at"] is None
    alone.worker("late", "--slots", "1")
    until(lambda: alone.client.get_attempts(run_id)[0]["settled_at"], "what was left is settled")
    assert await owned(docker, {"gyoza.run": run_id, "gyoza.attempt": "1"}) == []
    assert not list(alone.data.glob(f"workers/late/attempts/{run_id}-1/io"))
    alone.reaches(run_id, "RUNNING", within_s=60)
    talker.goes_on(run_id)
    talker.open(run_id)
    run = alone.ended(run_id)
    assert [each["reason"] for each in alone.client.get_attempts(run_id)] == ["worker_lost", None]
    assert (run["state"], run["user_failures"], run["infra_losses"]) == ("COMPLETED", 0, 1)


@pytest.mark.docker
def test_an_ending_that_nobody_heard_is_told_by_the_next_process(alone: Stage, runtime: str):
    """The program is gone and its folder too: only what the killed worker kept knows how it ended."""
    worker = alone.worker("quiet", "--runtime", runtime)
    talker = Talker(alone, "unheard")
    run_id = talker.start()
    alone.serving.kill()
    io = talker.io(run_id)
    talker.open(run_id)
    until(lambda: not io.exists() and len(list(io.parent.iterdir())) == 1, "all but what is to be told is gone")
    worker.kill()
    alone.server()
    assert alone.client.get_run(run_id)["state"] == "RUNNING"
    alone.worker("quiet", "--runtime", runtime)
    assert_as_if_nothing_had_been(alone, run_id, was_heard=False)


def test_a_worker_that_is_frozen_in_its_folder_is_named_to_its_successor(stage: Stage):
    stage.server()
    first = stage.worker("frozen")
    first.send(signal.SIGSTOP)
    second = stage.run("worker", "start", "--name", "frozen")
    second.refuses("An earlier process of this worker works in", f"pid {first.pid}")
    first.send(signal.SIGCONT)
