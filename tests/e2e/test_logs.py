"""What ops write, through real servers, workers and containers, onto a user's terminal."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import aiodocker
import psutil
import pytest

from gyoza.client.call import get
from gyoza.client.calls import get_logs
from gyoza.worker.engines.dockerd import owned

from .conftest import BASE_IMAGE, played
from .stage import CALM, Command, Stage, until

SMALL = {"cpu": 0.1, "ram_mb": 64}
MB = 2**20
WAITS = 'until [ -e "$GYOZA_IO_DIR/go" ]; do sleep 0.05; done; '


class Cluster:
    """A stage with one server and one worker."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.server, self.worker = stage.server(), stage.worker("w")
        self.client = stage.client

    def submit(self, name: str, program: str) -> str:
        (run_id,) = self.stage.submit(self.stage.op(name, program, constraints=SMALL))
        return run_id

    def let_go(self) -> None:
        (folder,) = (self.stage.data / "workers" / "w" / "attempts").glob("*/io")
        (folder / "go").touch()

    def size(self, run_id: str) -> int:
        """How long the log is, without reading it."""
        call = get_logs(run_id, offset=2**62)
        return self.client.send(call.read_by(lambda answer: int(answer.headers["Gyoza-Log-Size"])))

    def grows(self, run_id: str) -> None:
        seen = self.size(run_id)
        until(lambda: self.size(run_id) > seen, "the log grows")

    def settles(self, run_id: str) -> None:
        until(lambda: self.client.get_attempts(run_id)[0]["settled_at"], "the attempt is settled")


COUNTS = 'i=0; while [ ! -e "$GYOZA_IO_DIR/go" ]; do i=$((i+1)); echo "line $i"; sleep 0.005; done; echo "end $i"'


@pytest.fixture
def alone(tmp_path: Path, made_data: Path) -> Iterator[Cluster]:
    """Plain processes."""
    for stage in played(Stage(tmp_path, **CALM), made_data):
        yield Cluster(stage)


@pytest.fixture
async def contained(tmp_path: Path, made_data: Path, docker: aiodocker.Docker) -> AsyncIterator[Cluster]:
    """Containers."""
    for stage in played(Stage(tmp_path, **CALM), made_data):
        stage.environ |= {"GYOZA_RUNTIME": "docker", "GYOZA_BASE_IMAGE": BASE_IMAGE}
        cluster = Cluster(stage)
        label = f"gyoza.cluster={cluster.client.send(get('/health'))['cluster_id']}"
        yield cluster
        for image in await docker.images.list(filters={"label": [label]}):
            await docker.images.delete(image["Id"], force=True)


@pytest.fixture(params=["alone", pytest.param("contained", marks=pytest.mark.docker)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(request.param)


def test_whoever_follows_sees_what_an_op_writes_while_it_runs(cluster: Cluster):
    stage = cluster.stage
    stage.op("says", f"echo before; printf unended; {WAITS} echo; echo after", constraints=SMALL)
    run = stage.run("run", "says", "--follow")
    run.says("| before", within_s=60)
    (run_id,) = [each["id"] for each in cluster.client.list_runs()["data"]]
    tail = stage.run("runs", "logs", run_id, "--follow")
    tail.says("before\nunended")
    cluster.let_go()
    assert (run.ends(), tail.ends()) == (0, 0)
    assert tail.said == "before\nunended\nafter\n"
    shown = [line.split(" | ")[1] for line in run.said.splitlines() if " | " in line]
    assert shown == ["before", "unended", "after"]


def test_no_byte_is_lost_or_doubled_while_servers_stop_die_and_start(alone: Cluster):
    run_id = alone.submit("counts", COUNTS)
    tail = alone.stage.run("runs", "logs", run_id, "--follow")
    for end in (Command.stop, Command.kill):
        alone.grows(run_id)
        end(alone.server)
        alone.server = alone.stage.server()
    alone.grows(run_id)
    alone.let_go()
    assert alone.stage.ended(run_id)["state"] == "COMPLETED"
    *lines, last = alone.client.get_logs(run_id).decode().splitlines()
    assert lines == [f"line {n}" for n in range(1, len(lines) + 1)]
    assert last == f"end {len(lines)}"
    tail.ends()
    assert tail.said.splitlines() == [*lines, last]


@contextmanager
def weighed(*commands: Command) -> Iterator[list[int]]:
    """How many bytes of memory each of these processes grew by at most meanwhile."""
    processes = [psutil.Process(command.pid) for command in commands]
    before = [process.memory_info().rss for process in processes]
    grown, is_over = [0] * len(commands), Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            grown[:] = [max(grown[n], each.memory_info().rss - before[n]) for n, each in enumerate(processes)]

    watching = Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield grown
    finally:
        is_over.set()
        watching.join()


def test_a_flood_is_bounded_in_memory_and_its_cancel_takes_no_longer_than_any(cluster: Cluster):
    cluster.stage.ended(cluster.submit("warms-up", "echo warm"), within_s=60)
    with weighed(cluster.server, cluster.worker) as grown:
        run_id = cluster.submit("floods", f"head -c 100000000 /dev/zero | tr '\\0' x; echo; {WAITS} exec yes flood")
        until(lambda: cluster.size(run_id) > 60 * MB, "what fits of 100 MB", within_s=90)
        cluster.let_go()
        cluster.client.cancel_run(run_id)
        began = time.monotonic()
        cluster.settles(run_id)
        took_s = time.monotonic() - began
    assert took_s < 30
    assert max(grown) < 50 * MB, [f"{each / MB:.0f} MB" for each in grown]
    said = cluster.client.get_logs(run_id)
    assert 63 * MB < len(said) <= 64 * MB
    assert said.startswith(b"x" * (63 * MB)) and said.count(b"[gyoza:") == 2


@pytest.mark.docker
async def test_a_container_that_floods_is_gone_when_its_cancel_is_settled(contained: Cluster, docker: aiodocker.Docker):
    run_id = contained.submit("floods", "exec yes")
    until(lambda: contained.size(run_id) > MB, "it floods", within_s=60)
    contained.client.cancel_run(run_id)
    contained.settles(run_id)
    assert await owned(docker, {"gyoza.run": run_id}) == []
