"""What only containers have: limits that the engine enforces, images, registries, a network to take away."""

import asyncio
import io
import json
import os
import socket
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiodocker
import pytest

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Exit, Job, Owner, Ready
from gyoza.worker.engines.cleanup import remove_folder
from gyoza.worker.engines.confinement import LOGS, Host, container_config
from gyoza.worker.engines.container import Container
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect, owned, remove

pytestmark = [pytest.mark.docker, pytest.mark.timeout(60), pytest.mark.usefixtures("docker_ready")]
BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")
MakeJob = Callable[..., Job]
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
async def client() -> AsyncIterator[aiodocker.Docker]:
    client = await connect()
    yield client
    await disconnect(client)


@pytest.fixture
async def plain_image(client: aiodocker.Docker, owner: Owner) -> AsyncIterator[str]:
    """An image that somebody built by hand: it writes a folder of its own."""
    name = f"gyoza-test-{uuid4().hex[:12]}:latest"
    maker = await client.containers.create({"Image": BASE_IMAGE, "Cmd": ["true"]})
    program = "umask 077; mkdir $GYOZA_IO_DIR/deep; id -u > $GYOZA_IO_DIR/deep/user; echo from the image"
    changes = f"CMD {json.dumps(['sh', '-c', program])}"
    await maker.commit(repository=name.partition(":")[0], tag="latest", changes=changes)
    await maker.delete(force=True)
    yield name
    await client.images.delete(name, force=True)


@asynccontextmanager
async def an_engine(owner: Owner, **settings: Any) -> AsyncIterator[Docker]:
    engine = Docker(owner, **settings)
    yield engine
    await engine.close()


async def raises(reason: str, doing: Awaitable[Any]) -> str:
    with pytest.raises(AttemptError) as caught:
        await doing
    assert caught.value.reason == reason, caught.value.detail
    return caught.value.detail


async def test_limits_and_labels_are_really_set(
    docker: Docker, job: MakeJob, owner: Owner, client: aiodocker.Docker
) -> None:
    made = job(SLEEP, cpu_m=500, ram_mb=64)
    async with docker.started(made, await docker.ready(made)):
        shown = await (await client.containers.get(made.name)).show()
    host = shown["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 * 2**20, 64 * 2**20, 500_000_000)
    assert (host["PidsLimit"], host["SecurityOpt"], host["Init"]) == (4096, ["no-new-privileges"], True)
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert (host["IpcMode"], host["CgroupnsMode"], host["PidMode"], host["UTSMode"]) == ("private", "private", "", "")
    assert host["LogConfig"] == LOGS
    inherited = ("gyoza.bundle", "gyoza.builder")
    assert {name: value for name, value in shown["Config"]["Labels"].items() if name not in inherited} == {
        "gyoza.cluster": owner.cluster,
        "gyoza.host": "here",
        "gyoza.worker": "one",
        "gyoza.run": made.run_id,
        "gyoza.attempt": "1",
    }


async def test_the_container_has_exactly_its_gpus(docker: Docker, job: MakeJob, owner: Owner) -> None:
    made = job(gpus=["GPU-a", "MIG-b"])
    config = container_config(made, Ready("image"), owner, Host(cpus=8), user="", network="none")
    assert config["HostConfig"]["DeviceRequests"] == [{"DeviceIDs": ["GPU-a", "MIG-b"], "Capabilities": [["gpu"]]}]
    assert {"CUDA_DEVICE_ORDER=PCI_BUS_ID", "NVIDIA_VISIBLE_DEVICES=GPU-a,MIG-b"} <= set(config["Env"])
    detail = await raises("start_failed", docker.started(made, await docker.ready(made)).__aenter__())
    assert "NVIDIA container toolkit" in detail


async def test_a_container_without_gpus_can_ask_for_none(docker: Docker, job: MakeJob, owner: Owner) -> None:
    program = "import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'])"
    made = job(env={"NVIDIA_VISIBLE_DEVICES": "all", "PROGRAM": program})
    assert (
        "DeviceRequests"
        not in container_config(made, Ready("image"), owner, Host(cpus=8), user="", network="none")["HostConfig"]
    )
    async with docker.started(made, await docker.ready(made)) as running:
        await running.wait()
        assert await running.log_tail() == "void\n"


async def test_use_is_measured_where_cgroups_are_out_of_sight(
    docker: Docker, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.engines.container.read_cgroup", lambda *_: None)
    made = job("import time; x = b'y' * (64 * 2**20); t = time.time()\nwhile time.time() < t + 2.5: pass")
    async with docker.started(made, await docker.ready(made)) as running:
        ended = await running.wait()
    assert ended.cpu_s is not None and 0.4 < ended.cpu_s < 5
    assert ended.peak_ram_mb is not None and 60 < ended.peak_ram_mb < 128


async def test_a_memory_kill_that_the_engine_missed_is_known_from_the_cgroup(
    docker: Docker, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child was killed; what its parent came to after a while is the end of the program."""
    hoards = "subprocess.run([sys.executable, '-c', 'x = b\"x\" * (300 * 2**20)'])"
    real = Container._exit

    def missed(container: Container, state: dict[str, Any]) -> Exit:
        assert state["OOMKilled"]
        return real(container, {**state, "OOMKilled": False})

    monkeypatch.setattr(Container, "_exit", missed)
    for code, oom_killed in ((1, True), (0, False)):
        made = job(f"import subprocess, sys, time; {hoards}; time.sleep(1); sys.exit({code})")
        async with docker.started(made, await docker.ready(made)) as running:
            ended = await running.wait()
        assert (ended.exit_code, ended.oom_killed) == (code, oom_killed)


async def test_without_a_network_there_is_none(docker: Docker, job: MakeJob) -> None:
    program = "import os; print(sorted(os.listdir('/sys/class/net')))"
    for network, expected in ((False, "['lo']"), (True, "'eth0'")):
        made = job(program, network=network)
        async with docker.started(made, await docker.ready(made)) as running:
            await running.wait()
            assert expected in await running.log_tail()


async def test_a_bundle_does_not_run_as_root(docker: Docker, job: MakeJob) -> None:
    made = job("import os; print(os.getuid()); open(os.path.expanduser('~/x'), 'w')")
    async with docker.started(made, await docker.ready(made)) as running:
        assert (await running.wait()).exit_code == 0
        expected = 65532 if os.geteuid() == 0 else os.geteuid()
        assert (await running.log_tail()).strip() == str(expected)


async def test_an_image_alone_runs_as_it_says_itself(docker: Docker, job: MakeJob, plain_image: str) -> None:
    made = job(image=plain_image, bundle=None, archive=None)
    async with docker.started(made, await docker.ready(made)) as running:
        assert (await running.wait()).exit_code == 0
        assert await running.log_tail() == "from the image\n"
    nobody = 65532 if os.geteuid() == 0 else os.geteuid()
    assert (made.io_dir / "deep" / "user").read_text() == f"{nobody}\n"
    remove_folder(made.io_dir)


async def test_an_image_that_is_here_comes_before_the_bundle(docker: Docker, job: MakeJob, plain_image: str) -> None:
    made = job(image=plain_image)
    async with docker.started(made, await docker.ready(made)) as running:
        await running.wait()
        assert await running.log_tail() == "from the image\n"


async def test_the_bundle_stands_in_for_an_image_that_cannot_be_had(docker: Docker, job: MakeJob) -> None:
    made = job("print('from the bundle')", image="gyoza.invalid/nowhere:1")
    async with docker.started(made, await docker.ready(made)) as running:
        await running.wait()
        assert await running.log_tail() == "from the bundle\n"


async def test_an_image_that_names_no_command_says_so(docker: Docker, job: MakeJob, client: aiodocker.Docker) -> None:
    context, text, name = io.BytesIO(), b"FROM scratch\nLABEL empty=yes\n", f"gyoza-test-{uuid4().hex[:12]}"
    with tarfile.open(fileobj=context, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    context.seek(0)
    await client.images.build(fileobj=context, encoding="identity", tag=name)
    try:
        made = job(image=name, bundle=None, archive=None)
        assert "CMD" in await raises("op_error", docker.started(made, await docker.ready(made)).__aenter__())
    finally:
        await client.images.delete(name, force=True)


class Registry:
    """A registry on this machine that answers every request the same way, or never."""

    def __init__(self, answer: bytes | None):
        self._answer = answer

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._answer is None:
            await reader.read()
        elif await reader.read(1) != b"\x16":  # no TLS, which the engine tries first
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            await writer.drain()
        writer.close()


def response(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n{body}".encode()


async def test_an_unknown_image_is_not_found(docker: Docker, job: MakeJob) -> None:
    body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]})
    async with Registry(response("404 Not Found", body)) as registry:
        made = job(image=f"{registry}/team/op:1", bundle=None, archive=None)
        assert f"{registry}/team/op:1" in await raises("image_not_found", docker.ready(made))


async def test_a_registry_out_of_reach_is_a_failed_pull(docker: Docker, job: MakeJob) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        image = f"127.0.0.1:{free.getsockname()[1]}/team/op:1"
        made = job(image=image, bundle=None, archive=None)
        assert image in await raises("image_pull_failed", docker.ready(made))


async def test_a_pull_that_stands_still_is_given_up(owner: Owner, job: MakeJob) -> None:
    async with Registry(None) as registry, an_engine(owner, stall_s=0.5) as engine:
        made = job(image=f"{registry}/team/op:1", bundle=None, archive=None)
        assert "stood still" in await raises("image_pull_failed", engine.ready(made))


async def test_a_name_that_is_none_is_not_found(docker: Docker, job: MakeJob) -> None:
    await raises("image_not_found", docker.ready(job(image="NOT//an image", bundle=None, archive=None)))


async def test_the_allow_list_is_kept(owner: Owner, job: MakeJob, plain_image: str) -> None:
    async with an_engine(owner, allowed_images=["ghcr.io/team/*", "python:3.*"]) as engine:
        made = job(image=plain_image, bundle=None, archive=None)
        assert "allow-list" in await raises("not_allowed", engine.ready(made))
    async with an_engine(owner, allowed_images=["gyoza-test-*:latest"]) as engine:
        image = plain_image.partition(":")[0]  # no tag means :latest
        assert (await engine.ready(job(image=image, bundle=None, archive=None))).name.startswith("sha256:")


async def test_a_base_image_named_by_a_bundle_must_be_allowed(
    owner: Owner, job: MakeJob, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    archive = tmp_path / "bundle.tar.gz"
    made = job(bundle=make_bundle(archive, {"app/main.py": b""}, base_image=BASE_IMAGE), archive=archive)
    async with an_engine(owner, allowed_images=["python:*"]) as engine:
        assert BASE_IMAGE in await raises("not_allowed", engine.ready(made))
    async with an_engine(owner, allowed_images=["python:*"], base_image=BASE_IMAGE) as engine:
        await engine.ready(made)


async def test_no_base_image_says_what_to_set(owner: Owner, job: MakeJob) -> None:
    async with an_engine(owner) as engine:
        assert "GYOZA_BASE_IMAGE" in await raises("image_not_found", engine.ready(job()))
        assert "GYOZA_BASE_IMAGE" in (await engine.can_build() or "")
        assert await engine.can_build(BASE_IMAGE) is None
    async with an_engine(owner, base_image="gyoza.invalid/none:1") as engine:
        assert "GYOZA_BASE_IMAGE" in await raises("image_pull_failed", engine.ready(job()))


async def test_a_bundle_is_built_once(docker: Docker, owner: Owner, job: MakeJob, client: aiodocker.Docker) -> None:
    first = await docker.ready(job())
    created = (await client.images.inspect(first.name))["Created"]
    async with an_engine(owner, base_image=BASE_IMAGE) as another:
        assert (await another.ready(job())) == first
    assert (await client.images.inspect(first.name))["Created"] == created
    assert first.digest == job().bundle.digest


async def test_a_build_that_is_cancelled_leaves_nothing(
    docker: Docker, owner: Owner, job: MakeJob, make_bundle: Callable[..., Bundle], tmp_path: Path,
    client: aiodocker.Docker, wheel: tuple[str, bytes, str],
) -> None:  # fmt: skip
    archive, (name, data, lock) = tmp_path / "bundle.tar.gz", wheel
    files = {f"wheels/{name}": data, "requirements.lock": lock.encode(), "app/main.py": uuid4().bytes}
    made = job(bundle=make_bundle(archive, files), archive=archive)
    before = set(await owned(client, {}))
    building = asyncio.create_task(docker.ready(made))
    async with asyncio.timeout(30):
        while not set(await owned(client, {})) - before and not building.done():
            await asyncio.sleep(0.02)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    async with asyncio.timeout(30):
        while set(await owned(client, {})) - before:
            await asyncio.sleep(0.05)
    assert list(Path("/tmp").glob("gyoza-build-*")) == []


async def test_a_leftover_of_the_same_attempt_makes_way(
    docker: Docker, owner: Owner, job: MakeJob, client: aiodocker.Docker
) -> None:
    made = job("print('new')")
    labels = {
        "gyoza.cluster": owner.cluster, "gyoza.host": "here", "gyoza.worker": "one",
        "gyoza.run": made.run_id, "gyoza.attempt": "1",
    }  # fmt: skip
    left = {"Image": BASE_IMAGE, "Cmd": ["sleep", "600"], "Labels": labels}
    await (await client.containers.create(left, name=made.name)).start()
    async with docker.started(made, await docker.ready(made)) as running:
        await running.wait()
        assert await running.log_tail() == "new\n"


async def test_a_strangers_container_of_that_name_is_left_alone(
    docker: Docker, job: MakeJob, client: aiodocker.Docker
) -> None:
    made = job()
    stranger = await client.containers.create({"Image": BASE_IMAGE, "Cmd": ["sleep", "600"]}, name=made.name)
    try:
        assert made.name in await raises("start_failed", docker.started(made, await docker.ready(made)).__aenter__())
        assert (await stranger.show())["State"]["Status"] == "created"
    finally:
        await remove(client, stranger.id)


async def test_a_container_that_somebody_removed_is_not_waited_for(
    docker: Docker, job: MakeJob, client: aiodocker.Docker
) -> None:
    made = job(SLEEP)
    async with docker.started(made, await docker.ready(made)) as running:
        await remove(client, made.name)
        try:
            assert (await running.wait()).signal == 9  # seen before its removal
        except AttemptError as error:
            assert error.reason == "start_failed" and "gone" in error.detail
        await running.stop(1)


class Proxy:
    """Stands between an engine and its socket, and can cut and refuse all connections."""

    def __init__(self, path: Path):
        self.path = path
        self._pipes: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Proxy":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def cut(self) -> None:
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in list(self._pipes):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection("/var/run/docker.sock")
        self._pipes |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._pipes -= {writer, back}
        writer.close()
        back.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()


async def test_a_lost_connection_is_no_ending(
    docker: Docker, owner: Owner, job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await docker.ready(job())
    proxy = Proxy(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{proxy.path}")
    program = "import os, time\nwhile not os.path.exists(os.environ['GYOZA_IO_DIR'] + '/go'): time.sleep(0.05)\nexit(6)"
    async with proxy, an_engine(owner, base_image=BASE_IMAGE) as engine:
        made = job(program)
        async with engine.started(made, await engine.ready(made)) as running:
            waiting = asyncio.create_task(running.wait())
            await asyncio.wait({waiting}, timeout=0.2)
            await proxy.cut()
            await asyncio.wait({waiting}, timeout=0.5)
            assert not waiting.done()
            assert "Docker does not answer" in (await engine.can_run() or "")
            (made.io_dir / "go").touch()
            await proxy.open()
            assert (await waiting).exit_code == 6


@pytest.mark.parametrize(
    "host, says",
    [
        ("unix:///nowhere/docker.sock", "install and start Docker"),
        ("tcp://127.0.0.1:1", "start Docker"),
    ],
)
async def test_an_engine_that_does_not_answer_is_explained(
    owner: Owner, job: MakeJob, monkeypatch: pytest.MonkeyPatch, host: str, says: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    async with an_engine(owner) as engine:
        assert says in (await engine.can_run() or "")
        assert says in await raises("image_pull_failed", engine.ready(job()))
        assert says in await raises("start_failed", engine.sweep())
