"""Two servers and some workers, each behind a wire of its own; what ends among them is started anew."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
from aiodocker.exceptions import DockerError

from e2e.stage import Command, Stage, free_port
from gyoza.client import GyozaClient
from gyoza.worker.engines import Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect, owned

from .wire import Background, Wire

KEY = "a-key-for-chaos"
PACE = {"GYOZA_HEARTBEAT_S": "0.5", "GYOZA_LEASE_S": "4"}
SLOTS = 4
SERVERS = ("alpha", "beta")
PROCESS_WORKERS = ("one", "two")
CONTAINED, NARROW = "boxed", "narrow"
"""The worker with Docker, and the one whose disk is small."""
DISK_MB = 160
UNFINISHED = ("hosts/*/workers/*/bundles/build-*", "hosts/*/workers/*/bundles/.*.part")
FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"


class Kept:
    """A command that is started anew when it ends, unless somebody holds it down."""

    def __init__(self, start: Callable[[], Command]):
        self._start = start
        self._is_down = False
        self.commands = [start()]

    @property
    def command(self) -> Command:
        return self.commands[-1]

    def kill(self) -> None:
        self._is_down = True
        self.command.kill()

    def revive(self) -> None:
        self._is_down = False
        self.commands.append(self._start())

    def tend(self) -> None:
        if not self._is_down and self.command.code is not None:
            self.revive()


class Scene:
    """`no_docker`: why no worker runs containers, if none does; `faketime`: a library that skews clocks, where there is
    one; `has_disk`: whether there is a worker with a small disk.
    """

    def __init__(self, folder: Path, database_url: str, base_image: str):
        self.folder, self.database_url, self._base_image = folder, database_url, base_image
        self.background = Background()
        self.no_docker = self.background.do(_trouble_with_docker(base_image))
        self.restarts_docker = os.environ.get("GYOZA_CHAOS_RESTART_DOCKER", "")
        self.faketime = next((str(path) for path in Path("/").glob(FAKETIME[1:])), None)
        self.has_disk = os.geteuid() == 0 and _mounted(folder / "hosts" / NARROW)
        self.ports = {name: free_port() for name in SERVERS}
        self.servers: dict[str, Kept] = {}
        self.wires: dict[str, Wire] = {}
        self.workers: dict[str, Kept] = {}
        self.cluster = ""
        (folder / "tmp").mkdir()
        self._stage = Stage(folder, **PACE, GYOZA_DATABASE_URL=database_url, GYOZA_API_KEY=KEY)
        self._stage.environ["TMPDIR"] = str(folder / "tmp")

    def start(self) -> None:
        """Until all of them work."""
        self.servers = {name: Kept(self._server(name)) for name in SERVERS}
        for server in self.servers.values():
            server.command.says("Gyoza serves")
        self.cluster = httpx.get(f"{self.url_of(SERVERS[0])}/health").json()["cluster_id"]
        names = [*PROCESS_WORKERS, *[CONTAINED] * self.docker, *[NARROW] * self.has_disk]
        self.wires = {name: Wire(self.ports[SERVERS[n % len(SERVERS)]]) for n, name in enumerate(names)}
        for wire in self.wires.values():
            self.background.do(wire.open())
        self.workers = {name: Kept(self._worker(name)) for name in names}
        for name, worker in self.workers.items():
            worker.command.says(f"Worker {name} works for")

    def url_of(self, server: str) -> str:
        return f"http://127.0.0.1:{self.ports[server]}"

    @property
    def docker(self) -> bool:
        return self.no_docker is None

    def client(self, server: str, timeout_s: float = 10) -> GyozaClient:
        return GyozaClient(self.url_of(server), KEY, timeout=timeout_s)

    @property
    def targets(self) -> Mapping[str, Sequence[str]]:
        """What there is to befall, by `Kind.of`."""
        return {
            "worker": tuple(self.workers),
            "server": SERVERS,
            "wire": tuple(self.wires),
            "database": ("all",),
            "docker": (CONTAINED,) * self.docker,
            "dockerd": ("all",) * bool(self.docker and self.restarts_docker),
            "disk": (NARROW,) * self.has_disk,
            "clock": (*self.workers, *SERVERS) if self.faketime else (),
        }

    def _server(self, name: str) -> Callable[[], Command]:
        environ = self._clock(name)
        return lambda: self._stage.run("server", "start", "--port", str(self.ports[name]), **environ)

    def _worker(self, name: str) -> Callable[[], Command]:
        runtime = {"GYOZA_RUNTIME": "docker", "GYOZA_BASE_IMAGE": self._base_image} if name == CONTAINED else {}
        environ = {"GYOZA_DATA_DIR": str(self.folder / "hosts" / name), **runtime, **self._clock(name)}
        server = f"http://127.0.0.1:{self.wires[name].port}"
        options = ("--name", name, "--server-url", server, "--slots", str(SLOTS), "--cpu", "4", "--drain-s", "0")
        return lambda: self._stage.run("worker", "start", *options, **environ)

    def _clock(self, name: str) -> dict[str, str]:
        if self.faketime is None:
            return {}
        self.set_clock(name, 0)
        how = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_CACHE_DURATION": "1"}
        return {**how, "LD_PRELOAD": self.faketime, "FAKETIME_TIMESTAMP_FILE": str(self.folder / f"{name}.clock")}

    def set_clock(self, name: str, ahead_s: int) -> None:
        (self.folder / f"{name}.clock").write_text(f"{ahead_s:+d}")

    def tend(self) -> None:
        for kept in (*self.servers.values(), *self.workers.values()):
            kept.tend()

    def ask(self, call: str, worker: str) -> None:
        """Whichever server answers soon; if none does, it is not done."""
        for server in SERVERS:
            with suppress(httpx.HTTPError), self.client(server, 1) as client:
                getattr(client, call)(worker)
                return

    async def _left_in_docker(self) -> list[str]:
        client = await connect()
        try:
            label = {"gyoza.cluster": self.cluster}
            networks = await client.networks.list(filters={"label": [f"gyoza.cluster={self.cluster}"]})
            return [*await owned(client, label), *(network["Name"] for network in networks)]
        finally:
            await disconnect(client)

    def containers(self) -> list[str]:
        return self.background.do(self._left_in_docker()) if self.docker else []

    def folders(self) -> list[str]:
        """What is left of attempts, and of files that were to be temporary."""
        places = ("hosts/*/workers/*/attempts/*", "hosts/*/workers/*/runs/*/*", *UNFINISHED, "tmp/*")
        return [str(path.relative_to(self.folder)) for place in places for path in self.folder.glob(place)]

    def said(self) -> Iterator[tuple[str, str]]:
        """What every process printed, by its words."""
        for kept in (*self.servers.values(), *self.workers.values()):
            for command in kept.commands:
                yield command.words, command.said

    def take_down(self) -> list[str]:
        """What did not end when it was told to, and the processes that were left."""
        with ExitStack() as last:
            if self.has_disk:
                last.callback(subprocess.run, ["umount", self.folder / "hosts" / NARROW], check=True)
            last.callback(self.background.end)
            if self.docker and self.cluster:
                last.callback(lambda: self.background.do(self._remove_images()))
            for wire in self.wires.values():
                last.callback(lambda wire=wire: self.background.do(wire.close()))
            return self._stage.end()

    async def _remove_images(self) -> None:
        client = await connect()
        try:
            for image in await client.images.list(filters={"label": [f"gyoza.cluster={self.cluster}"]}):
                with suppress(DockerError):  # another cluster runs the same bundle: it is not ours alone
                    await client.images.delete(image["Id"], force=True)
        finally:
            await disconnect(client)


async def _trouble_with_docker(base_image: str) -> str | None:
    engine = Docker(Owner("-", "-", "-"), base_image=base_image)
    try:
        return await engine.can_run() or await engine.can_build()
    finally:
        await engine.close()


def _mounted(folder: Path) -> bool:
    """Whether a small disk could be put there."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "gyoza-chaos", folder]
    return subprocess.run(mount, capture_output=True).returncode == 0
