"""A worker as a process: find the server, choose an engine, clean up what an earlier process left, work until told."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from gyoza.client.call import get
from gyoza.client.errors import Forbidden, GyozaUnreachable, NotFound, ResponseError, Unauthorized
from gyoza.client.http import AsyncGyozaClient
from gyoza.models.errors import StartUpError
from gyoza.models.paths import API_KEY_FILE
from gyoza.worker import nvml, systemd
from gyoza.worker.adoption import engines_of, left_in, names_in
from gyoza.worker.agent import Agent
from gyoza.worker.alive import alive
from gyoza.worker.engines import Engine, Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.process import Process
from gyoza.worker.gpus import Gpus
from gyoza.worker.identity import Identity
from gyoza.worker.lock import alone_in
from gyoza.worker.probe import Machine
from gyoza.worker.settings import WorkerSettings, make_folder
from gyoza.worker.sweep import remove_unfinished, sweep
from gyoza.worker.vault import Vault
from gyoza.worker.work import Place

FIRST_CONTACT_S = 15.0
"""How long a starting worker waits for its server, which may be starting too. With something to tell, for ever."""
_PAUSE_S = 0.25

Say = Callable[[str], None]


async def work(settings: WorkerSettings, say: Say) -> None:
    """Until a signal: the first lets runs go on for `drain_s`, the second stops them at once."""
    make_folder(settings.folder)
    identity = Identity.of(settings.name, settings.folder)
    left = await asyncio.to_thread(left_in, settings.attempts)
    cluster = await _answers(settings.server_url, say, float("inf") if left else FIRST_CONTACT_S)
    # Only now: a server that starts on this host has written its key by the time it answers.
    async with AsyncGyozaClient(settings.server_url) as client:
        await _check_key(client, identity.name)
        wanted = replace(settings, runtime=_runtime(settings.runtime, engines_of(left)))
        engine, why = await choose_engine(wanted, Owner(cluster, identity.host_id, identity.name))
        try:
            gpus, log_limit = Gpus(nvml.library()), settings.log_limit_mb * 2**20
            place = Place(identity.name, settings.folder, engine, client, gpus, log_limit, Vault(settings.secrets))
            agent = Agent(identity, Machine(settings, gpus).resources, settings.tags, place)
            await agent.take_over(names_in(settings.attempts))
            async with (
                alone_in(settings.folder),
                alive(agent.pulse, settings.health_port, lambda: {"worker": identity.name, "holds": agent.holds}),
            ):
                await _succeed(agent, place)
                greeting = f"Worker {identity.name} works for {client.address.url} {why}"
                await _work_until_told(agent, settings, say, greeting)
        except ResponseError as error:
            raise StartUpError(str(error)) from error
        finally:
            await engine.close()


def _runtime(wanted: str, in_use: frozenset[str]) -> str:
    """Containers that an earlier process left must be looked after: then plain processes are no way out."""
    return Docker.name if wanted == "auto" and Docker.name in in_use else wanted


async def choose_engine(settings: WorkerSettings, owner: Owner) -> tuple[Engine, str]:
    """The engine, and in brackets which it is and why."""
    docker = Docker(
        owner,
        base_image=settings.base_image,
        allowed_images=settings.allowed_images,
        folder=settings.folder,
        watermark=settings.image_disk,
        allow_root=settings.allow_root,
    )
    process = Process(owner, settings.folder)
    if settings.runtime == "process":
        await docker.close()
        return process, "(in plain processes)"
    trouble = await docker.can_run()
    if trouble is None:
        return docker, "(in Docker containers)"
    await docker.close()
    if settings.runtime == "docker":
        raise StartUpError(f"{trouble}. Or run without containers: --runtime process")
    return process, f"(in plain processes: {trouble})"


async def _answers(server_url: str | None, say: Say, patience_s: float) -> str:
    """The cluster's id, once the server answers; StartUpError when it does not in time."""
    loop = asyncio.get_running_loop()
    until, waits = loop.time() + patience_s, False
    async with AsyncGyozaClient(server_url) as client:
        while True:
            try:
                return (await client.send(get("/health")))["cluster_id"]
            except GyozaUnreachable as error:
                if loop.time() > until:
                    raise StartUpError(str(error)) from error
            except ResponseError as error:
                raise StartUpError(str(error)) from error
            if not waits:
                say(f"Waiting for the server at {client.address.url}")
            waits = True
            await asyncio.sleep(_PAUSE_S)


async def _check_key(client: AsyncGyozaClient, name: str) -> None:
    """A worker may ask after itself, be it known yet or not."""
    try:
        with suppress(NotFound):
            await client.get_worker(name)
    except Unauthorized as error:
        what = "is not good for" if client.address.api_key else "is missing for"
        raise StartUpError(
            f"The API key {what} the server at {client.address.url}: set GYOZA_API_KEY to a key for this worker "
            f"(gyoza keys create NAME --worker {name}), or to what is in the file {API_KEY_FILE} of that server's "
            "data folder"
        ) from error
    except Forbidden as error:
        raise StartUpError(str(error)) from error


async def _succeed(agent: Agent, place: Place) -> None:
    """Go on with what an earlier process left, and end what cannot be gone on with."""
    left = await asyncio.to_thread(left_in, place.attempts)
    await sweep(place, {each.assignment.name for each in left}.__contains__)
    await asyncio.to_thread(remove_unfinished, place.folder / "bundles")
    agent.adopt(left)


async def _work_until_told(agent: Agent, settings: WorkerSettings, say: Say, greeting: str) -> None:
    leaving = asyncio.create_task(_leave_on_signals(agent, settings.drain_s, say))
    working = asyncio.create_task(agent.run())
    greeted = asyncio.create_task(_greet(agent, say, greeting))
    try:
        await working
    finally:
        for task in (leaving, greeted):
            task.cancel()
        await asyncio.gather(leaving, greeted, return_exceptions=True)


async def _greet(agent: Agent, say: Say, greeting: str) -> None:
    await agent.registered.wait()
    say(greeting)
    systemd.notify("READY=1", f"STATUS={greeting}")


async def _leave_on_signals(agent: Agent, drain_s: float, say: Say) -> None:
    told = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.release)
    await told.acquire()
    systemd.notify("STOPPING=1", "STATUS=Leaving: what runs may end")
    if not agent.is_idle and drain_s > 0:
        say(f"Leaving: runs may go on for {drain_s:g} s; a second signal stops them at once")
    agent.leave()
    with suppress(TimeoutError):
        async with asyncio.timeout(drain_s):
            await told.acquire()
    agent.stop_all()
