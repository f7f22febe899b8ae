"""A whole cluster on one machine: the server in this process, one worker in its own."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gyoza.cli.parts import server_parts
from gyoza.models.errors import StartUpError
from gyoza.worker.settings import WorkerSettings

WORKER_NAME = "local"
_WORKER_GRACE_S = 3.0
_RESTART_S = 1.0

Say = Callable[[str], None]


@asynccontextmanager
async def cluster(settings: Any, stopping: asyncio.Event, runtime: str | None, say: Say) -> AsyncGenerator[str]:
    """Yields the API key once server and worker are up; takes both down within 5 s, the worker first."""
    parts = server_parts()
    wanted = WorkerSettings.from_environment(os.environ, name=WORKER_NAME, runtime=runtime).runtime
    api_key = settings.api_key or parts.kept_api_key(settings.data_dir)
    ready, server_stop = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(parts.serve(settings, server_stop, say=say, ready=ready.set))
    try:
        await _first(ready, serving, stopping)
        async with _worker(settings, api_key, wanted, stopping, say):
            yield api_key
    finally:
        server_stop.set()
        await serving


@asynccontextmanager
async def _worker(settings: Any, api_key: str, runtime: str, stopping: asyncio.Event, say: Say) -> AsyncGenerator[None]:
    arguments = ["-m", "gyoza.cli", "worker", "start", "--name", WORKER_NAME, "--drain-s", "0"]
    chosen = await choose(say) if runtime == "auto" else runtime
    arguments += ["--server-url", _reachable(settings), "--runtime", chosen]
    environ = {**os.environ, "GYOZA_API_KEY": api_key, "GYOZA_DATA_DIR": str(settings.data_dir)}
    greeted = asyncio.Event()
    keeping = asyncio.create_task(_kept_up(arguments, environ, greeted, say))
    try:
        await _first(greeted, keeping, stopping)
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def choose(say: Say) -> str:
    """The runtime of a newcomer's worker: Docker where bundles can be built, else plain processes."""
    from gyoza.client.project import running_python
    from gyoza.models.bundle import base_image
    from gyoza.worker.engines import Owner
    from gyoza.worker.engines.docker import Docker

    docker = Docker(Owner("-", "-", "-"), base_image=os.environ.get("GYOZA_BASE_IMAGE") or None)
    try:
        trouble = await docker.can_run() or await docker.can_build(base_image(running_python()))
    finally:
        await docker.close()
    if trouble is None:
        return "docker"
    say(f"No containers, so ops run in plain processes: {trouble}")
    return "process"


async def _kept_up(arguments: Sequence[str], environ: Mapping[str, str], greeted: asyncio.Event, say: Say) -> None:
    """A worker that dies is started anew, unless it never came up. In its own session: Ctrl-C is for this process."""
    while True:
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environ, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        try:
            await _tell(child, greeted, say)
            code = await child.wait()
        finally:
            await _ended(child)
        if not greeted.is_set():
            return
        say(f"The worker ended by itself (exit code {code}): starting it anew")
        await asyncio.sleep(_RESTART_S)


async def _tell(child: asyncio.subprocess.Process, greeted: asyncio.Event, say: Say) -> None:
    """Pass on what the worker says; its first line is its greeting."""
    assert child.stdout is not None
    async for line in child.stdout:
        say(line.decode(errors="replace").rstrip())
        greeted.set()


async def _ended(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
    try:
        await asyncio.wait_for(child.wait(), _WORKER_GRACE_S)
    except TimeoutError:
        child.kill()
        await child.wait()


async def _first(event: asyncio.Event, ending: asyncio.Task[None], stopping: asyncio.Event) -> None:
    """Until `event`, or until there is no more point in waiting; StartUpError where the other side ended instead."""
    waits = [asyncio.create_task(event.wait()), asyncio.create_task(stopping.wait())]
    await asyncio.wait([*waits, ending], return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if ending.done() and not event.is_set():
        ending.result()
        raise StartUpError("The cluster did not come up: what is written above says why")


def _reachable(settings: Any) -> str:
    """How the worker on this machine reaches the server, which may listen on every address."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    host = anywhere.get(settings.host)
    return settings.url if host is None else f"http://{host}:{settings.port}"
