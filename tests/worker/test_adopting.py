"""Taking hold of what an earlier process started; and stopping for certain, whatever becomes of Docker meanwhile."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import aiodocker
import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.worker.engines import Job, Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect, owned
from gyoza.worker.engines.process import Process

from .cluster import RESOURCES, Cluster, Line, working

pytestmark = pytest.mark.timeout(60)
BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")
MakeJob = Callable[..., Job]
GATED = "import os, time\nwhile not os.path.exists(os.environ['GYOZA_IO_DIR'] + '/go'): time.sleep(0.05)\n"
STUBBORN = "trap '' TERM; echo ready > $GYOZA_IO_DIR/ready; while :; do sleep 0.05; done"


@pytest.fixture
async def client(docker_ready: None) -> AsyncIterator[aiodocker.Docker]:
    client = await connect()
    yield client
    await disconnect(client)


@pytest.fixture
async def successor(docker_ready: None, owner: Owner) -> AsyncIterator[Docker]:
    """A second engine of the same worker: as in its next process."""
    engine = Docker(owner, base_image=BASE_IMAGE)
    yield engine
    await engine.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise AssertionError(f"waited too long for {what}") from error


async def names(client: aiodocker.Docker, job: Job) -> list[str]:
    return await owned(client, {"gyoza.run": job.run_id})


@pytest.mark.docker
async def test_a_container_that_runs_is_taken_hold_of_and_its_time_counts_from_its_start(
    docker: Docker, successor: Docker, job: MakeJob, client: aiodocker.Docker
) -> None:
    made = job(GATED + "exit(6)")
    ready = await docker.ready(made)
    async with AsyncExitStack() as killed:
        await killed.enter_async_context(docker.started(made, ready))
        started = monotonic()
        await until(lambda: monotonic() > started + 1, "a second to pass")
        async with successor.adopt(made, ready) as running:
            assert running is not None and running.ran_s > 1
            (made.io_dir / "go").touch()
            assert (await running.wait()).exit_code == 6
        assert await names(client, made) == []


@pytest.mark.docker
async def test_one_that_has_ended_says_how(docker: Docker, successor: Docker, job: MakeJob) -> None:
    made = job("x = b'y' * (300 * 2**20)")
    ready = await docker.ready(made)
    async with AsyncExitStack() as killed:
        earlier = await killed.enter_async_context(docker.started(made, ready))
        await earlier.wait()
        async with successor.adopt(made, ready) as running:
            assert running is not None and running.ran_s == 0
            end = await running.wait()
            assert (end.exit_code, end.signal, end.oom_killed) == (137, 9, True)


@pytest.mark.docker
async def test_of_one_that_was_never_started_nothing_is_left(
    successor: Docker, owner: Owner, job: MakeJob, client: aiodocker.Docker
) -> None:
    made = job()
    ready = await successor.ready(made)
    labels = {"gyoza.cluster": owner.cluster, "gyoza.host": owner.host, "gyoza.worker": owner.worker}
    labels |= {"gyoza.run": made.run_id, "gyoza.attempt": "1"}
    await client.containers.create({"Image": BASE_IMAGE, "Cmd": ["true"], "Labels": labels}, name=made.name)
    async with successor.adopt(made, ready) as running:
        assert running is None
        assert await names(client, made) == []


@pytest.mark.docker
async def test_where_there_is_nothing_or_a_strangers_there_is_nothing_to_take_hold_of(
    successor: Docker, job: MakeJob, client: aiodocker.Docker
) -> None:
    made = job()
    ready = await successor.ready(made)
    async with successor.adopt(made, ready) as running:
        assert running is None
    config = {"Image": BASE_IMAGE, "Cmd": ["sleep", "60"], "Labels": {"gyoza.run": made.run_id}}
    stranger = await client.containers.create(config, name=made.name)
    try:
        async with successor.adopt(made, ready) as running:
            assert running is None
        assert await names(client, made) == [made.name]
    finally:
        await stranger.delete(force=True)


@pytest.mark.docker
async def test_a_sweep_spares_what_lives_and_ends_the_rest(
    docker: Docker, successor: Docker, job: MakeJob, client: aiodocker.Docker
) -> None:
    spared, swept = job(GATED), job(GATED)
    ready = await docker.ready(spared)
    async with AsyncExitStack() as killed:
        for each in (spared, swept):
            await killed.enter_async_context(docker.started(each, ready))
        assert await successor.sweep(lambda name: name == spared.name) == 1
        assert (await names(client, spared), await names(client, swept)) == ([spared.name], [])


async def test_a_plain_process_is_ended_and_never_taken_hold_of(
    process: Process, owner: Owner, job: MakeJob, process_folder: Path
) -> None:
    made = job(GATED)
    ready = await process.ready(made)
    async with AsyncExitStack() as killed:
        earlier = await killed.enter_async_context(process.started(made, ready))
        async with Process(owner, process_folder).adopt(made, ready) as running:
            assert running is None
            assert (await earlier.wait()).signal == 9


class Gate:
    """Stands before Docker's socket. While it is `shut`, Docker hangs; while it `refuses`, Docker is not there."""

    def __init__(self, path: Path):
        self.path = path
        self.refuses = False
        self.troubled = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._pipes: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Gate":
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._cut()

    def hang(self) -> None:
        self._flows.clear()

    def vanish(self) -> None:
        self.refuses = True
        self._cut()

    def recover(self) -> None:
        self.refuses = False
        self._flows.set()

    def _cut(self) -> None:
        for writer in self._pipes:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            self.troubled += 1
            writer.transport.abort()
            return
        there, back = await asyncio.open_unix_connection("/var/run/docker.sock")
        self._pipes |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.troubled += not self._flows.is_set()
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.transport.close()


@pytest.mark.docker
@pytest.mark.parametrize("trouble", [Gate.hang, Gate.vanish])
async def test_a_cancelled_attempt_keeps_its_room_until_docker_says_that_its_container_is_gone(
    line: Line,
    user: AsyncGyozaClient,
    tmp_path: Path,
    client: aiodocker.Docker,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[Gate], None],
) -> None:
    gate = Gate(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{gate.path}")

    def engine(owner: Owner, folder: Path) -> Docker:
        return Docker(owner, base_image=BASE_IMAGE)

    async with gate, working(line, user, tmp_path / "worker", engine=engine) as cluster:
        run_id = await cluster.submit(STUBBORN, execution={"cancel_grace_s": 0.2})
        path = cluster.place.attempts / f"{run_id}-1" / "io" / "ready"
        await cluster.until(path.exists, "the program to run")
        await cluster.state(run_id, "RUNNING")
        trouble(gate)
        before = gate.troubled
        assert (await user.cancel_run(run_id))["state"] == "CANCELLED"
        await cluster.until(lambda: told_to_stop(cluster), "the worker to hear of it")
        await cluster.until(lambda: gate.troubled > before, "it to be tried in vain")
        (attempt,) = await user.get_attempts(run_id)
        assert attempt["settled_at"] is None
        assert (await user.get_worker("one"))["room"]["slots"] == RESOURCES.slots - 1
        assert await owned(client, {"gyoza.run": run_id}) == [f"gyoza-{run_id}-1"]
        gate.recover()
        assert (await cluster.ended(run_id))["state"] == "CANCELLED"
        assert await owned(client, {"gyoza.run": run_id}) == []
        assert (await user.get_worker("one"))["room"]["slots"] == RESOURCES.slots
        (attempt,) = await user.get_attempts(run_id)
        assert (attempt["execution_summary"]["signal"], attempt["settled_at"] is not None) == (9, True)
        await cluster.until(lambda: cluster.agent.is_idle, "the worker to be idle")
        await cluster.place.engine.close()


def told_to_stop(cluster: Cluster) -> bool:
    return any(task.work.stopped.is_set() for task in cluster.agent._tasks.values())  # pyright: ignore[reportPrivateUsage]
