"""A container in which an attempt runs: made, started or taken hold of, watched, stopped, and removed."""

import asyncio
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Exit, Job, Owner, Ready, dockerd
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.engines.confinement import (
    IO,
    LEAST_RAM_MB,
    Host,
    container_config,
    io_mount,
    is_bundle,
    job_labels,
    limits,
    nobody,
    open_to,
    open_to_all,
    own_user,
    strangers_in,
)
from gyoza.worker.engines.dockerd import TROUBLE, handle, insist, is_away, why
from gyoza.worker.engines.log import Log
from gyoza.worker.engines.network import have_network
from gyoza.worker.engines.recording import Recording
from gyoza.worker.engines.usage import Usage, read_cgroup, read_oom_kills, read_pids, read_stats
from gyoza.worker.engines.user import chosen_user, host_uid

log = logging.getLogger(__name__)

LOOK_S = 0.2
SIGNALS = range(1, 65)
RECLAIM = "-reclaim"
START_FAILURES = (
    ("no space left", "disk_full", "Free some of this worker's disk"),
    ("no command specified", "op_error", "The image names nothing to run: give it a CMD or an ENTRYPOINT"),
    ("executable file not found", "op_error", "The image starts what it does not hold"),
    ("unable to find user", "op_error", "The image knows no such user: correct execution.user"),
    ("unable to find group", "op_error", "The image knows no such group: correct execution.user"),
    ("could not select device driver", "start_failed", "Install the NVIDIA container toolkit on this worker"),
)
"""What the engine's text holds -> reason, and what to do now."""


class Container:
    """A `Running`: one container, from its creation to its removal."""

    def __init__(self, client: aiodocker.Docker, job: Job, ready: Ready, owner: Owner, host: Host, log: Log):
        self._client, self._job, self._ready, self._owner, self._host = client, job, ready, owner, host
        self._handle = handle(client, job.name)
        self._log = log
        self._recording = Recording(client, job.name, log)
        self._usage = Usage()
        self._host_pid, self._id = 0, ""
        self._may_exist = False
        self._ended: asyncio.Task[Exit] | None = None
        self.ran_s = 0.0

    async def create(self) -> None:
        try:
            user = chosen_user(self._job.user, await self._own_user(), self._host)
            network = await have_network(self._client) if self._job.network else "none"
            await asyncio.to_thread(self._open_folders, user)
            await self._remove_earlier()
            await self._create(
                container_config(self._job, self._ready, self._owner, self._host, user=user, network=network)
            )
        except (DockerError, *TROUBLE) as error:
            raise _start_failure(self._job, error) from error

    async def _own_user(self) -> str:
        """As whom it runs by itself. A bundle's base image has no say in that."""
        if is_bundle(self._job, self._ready):
            return nobody(self._host)
        image = await self._client.images.inspect(self._ready.name)
        return image["Config"].get("User") or ""

    def _open_folders(self, user: str) -> None:
        open_to_all(self._job.io_dir)
        if self._job.secrets_dir is not None:
            open_to(host_uid(user, self._host), self._job.secrets_dir)

    async def _remove_earlier(self) -> None:
        try:
            earlier = await self._handle.show()
        except DockerError as error:
            if error.status == 404:
                return
            raise
        if not self._is_own(earlier):
            text = f"There is a container '{self._job.name}' that is not this worker's: remove it (docker rm -f)"
            raise AttemptError("start_failed", text)
        await dockerd.remove(self._client, self._job.name)

    async def _create(self, config: dict[str, Any]) -> None:
        self._may_exist = True
        try:
            await self._client.containers.create(config, name=self._job.name)
        except DockerError as error:
            self._may_exist = is_away(error)
            raise

    async def start(self) -> None:
        await self._recording.attach()
        try:
            await self._handle.start()
        except (DockerError, *TROUBLE) as error:
            raise _start_failure(self._job, error) from error
        self._ended = asyncio.create_task(self._watch())

    async def resume(self) -> bool:
        """Whether it is there and was started; of one that never was, or was being removed, nothing is left."""
        try:
            shown = await insist(self._handle.show, f"look for container {self._job.name}")
        except DockerError:
            return False
        if not self._is_own(shown):
            return False
        self._may_exist = True
        if shown["State"]["Status"] in ("created", "removing", "dead"):
            await self.end()
            return False
        self.ran_s = _running_s(shown["State"])
        self._recording.resume()
        self._ended = asyncio.create_task(self._watch())
        return True

    def _is_own(self, shown: dict[str, Any]) -> bool:
        return job_labels(self._owner, self._job).items() <= (shown["Config"].get("Labels") or {}).items()

    async def _watch(self) -> Exit:
        measuring = asyncio.create_task(self._measure())
        try:
            state = await self._end_state()
        finally:
            measuring.cancel()
            await asyncio.wait({measuring})
        await self._recording.finish()
        await self._reclaim()
        await self._see_if_entry_ran(state["ExitCode"])
        return self._exit(state)

    async def _end_state(self) -> dict[str, Any]:
        """The engine's own word that it has ended; that the connection was lost is none, and it is asked again."""
        what = f"wait for container {self._job.name}"
        try:
            while True:
                await insist(self._handle.wait, what)
                state = (await insist(self._handle.show, what))["State"]
                if not state["Running"]:
                    return state
        except DockerError as error:
            text = f"The container of attempt {self._job.attempt} is gone: somebody removed it, or Docker lost it"
            raise AttemptError("start_failed", text) from error

    async def _measure(self) -> None:
        pause = 0.02
        with suppress(DockerError, *TROUBLE):
            shown = await insist(self._handle.show, f"look at container {self._job.name}")
            self._host_pid, self._id = shown["State"]["Pid"], shown["Id"]
            while True:
                seen = read_cgroup(self._host_pid, self._id)
                seen = seen or read_stats(await dockerd.stats(self._client, self._id))
                if seen is not None:
                    self._usage.saw(*seen)
                self._usage.oom_kills = max(self._usage.oom_kills, read_oom_kills(self._host_pid, self._id))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LOOK_S)

    async def _see_if_entry_ran(self, code: int) -> None:
        """The engine's init reports an entry command that cannot be run by an exit code that an op may have too."""
        if self._job.bundle is None or code not in (126, 127):
            return
        said = await self.log_tail()
        if "[FATAL tini" in said:
            entry = list(self._job.bundle.entry)
            raise AttemptError("bundle_broken", f"The bundle's entry command {entry} cannot be run: {said.strip()}")

    def _exit(self, state: dict[str, Any]) -> Exit:
        """The engine hears of a memory kill while the container ends, and may miss it; its cgroup has it before."""
        code: int = state["ExitCode"]
        oom_killed = code != 0 and bool(state["OOMKilled"] or self._usage.oom_kills)
        peak_ram_mb = max(self._job.ram_mb, LEAST_RAM_MB) if oom_killed else self._usage.peak_ram_mb
        signal = code - 128 if code - 128 in SIGNALS else None
        return Exit(code, signal, oom_killed, self._usage.cpu_s, peak_ram_mb)

    async def wait(self) -> Exit:
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    def pids(self) -> frozenset[int]:
        return read_pids(self._host_pid, self._id) if self._id else frozenset()

    async def stop(self, grace_s: float) -> None:
        assert self._ended is not None
        for signal, patience_s in (("SIGTERM", grace_s), ("SIGKILL", None)):
            if not self._ended.done():
                await self._send(signal)
                await asyncio.wait({self._ended}, timeout=patience_s)

    async def _send(self, signal: str) -> None:
        with suppress(DockerError):  # what insist lets through: it is gone, or has ended
            await insist(lambda: self._handle.kill(signal=signal), f"send {signal} to container {self._job.name}")

    async def log_tail(self, size: int = 2000) -> str:
        return self._log.tail(size)

    async def end(self) -> None:
        """Remove it, running or not, started or not; returns once the engine says that it is gone."""
        if self._may_exist:
            await dockerd.remove(self._client, self._job.name)
            await self._reclaim()
        if self._ended is None:
            await self._recording.close(within_s=0)
        else:
            self._ended.cancel()
            await asyncio.gather(self._ended, return_exceptions=True)
            await self._recording.close()

    async def _reclaim(self) -> None:
        """Give the files of the op to a worker that is not root, which else could neither read nor remove them.

        Only root inside a container can: the op's own image is asked for its `chown`.
        """
        io_dir, user = self._job.io_dir, own_user(self._host)
        if os.geteuid() == 0 or not await asyncio.to_thread(strangers_in, io_dir):
            return
        config = {
            "Image": self._ready.name,
            "Labels": job_labels(self._owner, self._job),
            "User": "0:0",
            "Entrypoint": ["chown", "-hR", user, IO],
            "Cmd": [],
            "NetworkDisabled": True,
            "HostConfig": {
                **limits(256, 1000, self._host),
                "CapAdd": ["CHOWN", "DAC_OVERRIDE"],
                "Mounts": [io_mount(io_dir)],
            },
        }
        name = self._job.name + RECLAIM
        try:
            await dockerd.remove(self._client, name)
            await self._client.containers.create(config, name=name)
            await handle(self._client, name).start()
            await handle(self._client, name).wait()
        except (DockerError, *TROUBLE) as error:
            log.warning("files of an op in %s belong to another user and could not be reclaimed: %s", io_dir, error)
        finally:
            await to_the_end(dockerd.remove(self._client, name))


def _running_s(state: dict[str, Any]) -> float:
    """By the engine's word of when it started; 0 for what does not run."""
    if not state["Running"]:
        return 0.0
    since = datetime.now(UTC) - datetime.fromisoformat(state["StartedAt"])
    return max(since.total_seconds(), 0.0)


def _start_failure(job: Job, error: Exception) -> AttemptError:
    said = getattr(error, "message", str(error))
    for sign, reason, hint in START_FAILURES:
        if sign in said.lower():
            return AttemptError(reason, f"The container of the op did not start: {said.strip()}. {hint}")
    return AttemptError("start_failed", f"The container of the op did not start: {said.strip() or why(error)}")
