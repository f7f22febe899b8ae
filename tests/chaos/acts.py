"""How each kind of fault is done to a scene, and undone. None takes longer than a moment: others begin meanwhile."""

import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

import psycopg
from aiodocker.exceptions import DockerError

from gyoza.worker.engines.dockerd import connect, disconnect, owned

from .scene import NARROW, Scene

Act = Callable[[Scene, str], object]
"""`target` is the second argument."""

SKEWS_S = (-7200, -30, 30, 7200)
DROP_CONNECTIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def _nothing(scene: Scene, target: str) -> None:
    """Nothing is to be undone."""


def _mend(scene: Scene, name: str) -> None:
    scene.background.do(scene.wires[name].mend())


def _drop_connections(scene: Scene, target: str) -> None:
    with psycopg.connect(scene.database_url, autocommit=True) as connection:
        connection.execute(DROP_CONNECTIONS)


def _befall_a_container(what: str, **how: Any) -> Act:
    async def befall(cluster: str) -> None:
        client = await connect()
        try:
            if names := sorted(await owned(client, {"gyoza.cluster": cluster})):
                with suppress(DockerError):  # it has ended meanwhile
                    await getattr(client.containers.container(names[0]), what)(**how)
        finally:
            await disconnect(client)

    return lambda scene, target: scene.background.do(befall(scene.cluster))


def _restart_docker(scene: Scene, target: str) -> None:
    subprocess.run(["sh", "-c", scene.restarts_docker], check=True, timeout=120)


def _fill(scene: Scene, target: str) -> None:
    with suppress(OSError), (scene.folder / "hosts" / NARROW / "filling").open("wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass


def _empty(scene: Scene, target: str) -> None:
    (scene.folder / "hosts" / NARROW / "filling").unlink(missing_ok=True)


def _skew(scene: Scene, name: str) -> None:
    scene.set_clock(name, Random(name + str(len(scene.servers["alpha"].commands))).choice(SKEWS_S))


ACTS: Mapping[str, tuple[Act, Act]] = {
    "kill worker": (lambda scene, name: scene.workers[name].kill(), lambda scene, name: scene.workers[name].revive()),
    "freeze worker": (
        lambda scene, name: scene.workers[name].command.freeze(),
        lambda scene, name: scene.workers[name].command.wake(),
    ),
    "drain worker": (
        lambda scene, name: scene.ask("drain_worker", name),
        lambda scene, name: scene.ask("resume_worker", name),
    ),
    "kill server": (lambda scene, name: scene.servers[name].kill(), lambda scene, name: scene.servers[name].revive()),
    "freeze server": (
        lambda scene, name: scene.servers[name].command.freeze(),
        lambda scene, name: scene.servers[name].command.wake(),
    ),
    "cut the wire": (lambda scene, name: scene.background.do(scene.wires[name].cut()), _mend),
    "hold up the wire": (lambda scene, name: scene.background.do(scene.wires[name].hold_up()), _mend),
    "slow the wire": (lambda scene, name: setattr(scene.wires[name], "delay_s", 0.2), _mend),
    "lose answers": (lambda scene, name: setattr(scene.wires[name], "loses_answers", True), _mend),
    "drop connections": (_drop_connections, _nothing),
    "kill a container": (_befall_a_container("kill"), _nothing),
    "remove a container": (_befall_a_container("delete", force=True), _nothing),
    "restart Docker": (_restart_docker, _nothing),
    "fill the disk": (_fill, _empty),
    "skew the clock": (_skew, lambda scene, name: scene.set_clock(name, 0)),
}
"""Kind of fault -> how it begins, how it ends."""
