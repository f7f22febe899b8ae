"""Ops as plain processes: for development, and for machines without Docker. An op there can do what its worker can.

Each run has a folder of its own, removed when it ends: a copy of the bundle's app as working directory (so that an op
may write there and harm no other run), HOME and TMPDIR. The environment holds nothing of the worker's but the few
variables in `KEPT`. Memory is limited by watching; CPU is not limited at all.
"""

import asyncio
import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import JOB, Exit, Job, Owner, Ready, Say, silent
from gyoza.worker.engines.cleanup import remove_folder, to_the_end
from gyoza.worker.engines.environments import digests_in, environment
from gyoza.worker.engines.frames import STDOUT
from gyoza.worker.engines.log import Log, kept_in
from gyoza.worker.engines.tree import Tree, cpu_s, kill, kill_all, marked, ram
from gyoza.worker.engines.usage import MB, Usage

KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
OWNER = "GYOZA_OWNER"
LOOK_S = 0.1
PART = 64 * 2**10
LAST_BYTES_S = 2.0

_log = logging.getLogger(__name__)


class Process:
    """An `Engine`. `folder` holds the environments of bundles and the runs' own folders; others may not enter it."""

    name = "process"

    def __init__(self, owner: Owner, folder: Path):
        self._owner = owner
        self._cache = folder / "environments"
        self._runs = folder / "runs" / hashlib.sha256(owner.mark.encode()).hexdigest()[:16]
        self._active: set[str] = set()

    async def can_run(self) -> str | None:
        if sys.platform == "win32":
            return "Plain processes need Linux or macOS: run this worker with Docker, or under WSL"
        return None

    def io_path(self, io_dir: Path) -> str:
        return str(io_dir)

    async def ready(self, job: Job, say: Say = silent) -> Ready:
        bundle, archive = _bundle_of(job)
        if job.image_digest not in (None, bundle.digest):
            raise AttemptError(
                "start_failed",
                f"An earlier attempt of this run was run from the image {job.image_digest}, and so must this one: it "
                "needs a Docker worker",
            )
        for is_asked, what in (
            (not job.network, "run without a network, which a process worker cannot take away"),
            (job.user is not None, f"run as the user '{job.user}', which a process worker cannot become"),
        ):
            if is_asked:
                raise AttemptError("not_allowed", f"The op must {what}: it needs a Docker worker")
        return Ready(str(await environment(bundle, archive, self._cache)), bundle.digest)

    def release(self, job: Job) -> None:
        """Environments stay."""

    def images(self) -> Sequence[str]:
        return digests_in(self._cache)

    @asynccontextmanager
    async def started(self, job: Job, ready: Ready) -> AsyncGenerator["Program"]:
        if job.name in self._active:
            raise AttemptError("start_failed", f"Attempt {job.attempt} of run '{job.run_id}' runs here already")
        self._active.add(job.name)
        try:
            with kept_in(job.log, job.io_dir.parent) as log:
                async with self._made(job, ready, log) as program:
                    yield program
        finally:
            self._active.discard(job.name)

    @asynccontextmanager
    async def _made(self, job: Job, ready: Ready, log: Log) -> AsyncGenerator["Program"]:
        folder = self._runs / job.name
        program: Program | None = None
        try:
            await to_the_end(asyncio.to_thread(_make_room, folder, Path(ready.name)))
            program = Program(job, self._env(job, Path(ready.name), folder), folder, log)
            await to_the_end(program.start())
            yield program
        finally:
            await to_the_end(_leave(program, folder))

    def _env(self, job: Job, home: Path, folder: Path) -> dict[str, str]:
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        env.setdefault("PATH", os.defpath)
        env |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        if _bundle_of(job)[0].python is not None:
            env["PATH"] = f"{home / 'env' / 'bin'}{os.pathsep}{env['PATH']}"
            env |= {"PYTHONPATH": str(home / "lib"), "PYTHONUNBUFFERED": "1"}
        gpus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(job.gpus)}
        ours = {"GYOZA_IO_DIR": str(job.io_dir), OWNER: self._owner.mark}
        secrets = {"GYOZA_SECRETS_DIR": str(job.secrets_dir)} if job.secrets_dir else {}
        return env | dict(job.env) | gpus | job.contract_env | ours | secrets

    @asynccontextmanager
    async def adopt(self, job: Job, ready: Ready) -> AsyncGenerator[None]:
        """Never: a program's output goes to its worker, and only its parent learns how it ended. It is ended."""
        await self._end(lambda name: name == job.name)
        yield None

    async def sweep(self, lives: Callable[[str], bool] = lambda name: False) -> int:
        """Besides processes, the folders of runs."""
        return await self._end(lambda name: name not in self._active and not lives(name))

    async def _end(self, goes: Callable[[str], bool]) -> int:
        attempts: set[str] = set()
        while left := await asyncio.to_thread(self._leftovers, goes):
            attempts.update(name for _, name in left)
            kill(process for process, _ in left)
            await asyncio.sleep(0.01)
        for folder in self._runs.glob("*"):
            if goes(folder.name):
                attempts.add(folder.name)
                await to_the_end(asyncio.to_thread(_remove, folder))
        return len(attempts)

    def _leftovers(self, goes: Callable[[str], bool]) -> list[tuple[psutil.Process, str]]:
        owned = marked({OWNER: self._owner.mark})
        named = [(process, f"{JOB}{env.get('GYOZA_RUN_ID')}-{env.get('GYOZA_ATTEMPT')}") for process, env in owned]
        return [(process, name) for process, name in named if goes(name)]

    async def close(self) -> None:
        """Nothing is held between runs."""


def _remove(folder: Path) -> None:
    """What cannot go holds up no other; a later sweep tries again."""
    try:
        remove_folder(folder)
    except OSError as error:
        _log.warning("the folder of a run cannot be removed: %s", error)


def _bundle_of(job: Job) -> tuple[Bundle, Path]:
    if job.bundle is None or job.archive is None:
        raise AttemptError(
            "image_not_found",
            f"The op is the image '{job.image}' alone, which this process worker cannot run: it needs a Docker worker",
        )
    return job.bundle, job.archive


def _make_room(folder: Path, home: Path) -> None:
    try:
        remove_folder(folder)
        folder.mkdir(mode=0o700, parents=True)
        shutil.copytree(home / "app", folder / "app", symlinks=True)
        for name in ("home", "tmp"):
            (folder / name).mkdir()
    except OSError as error:
        reason = "disk_full" if os.strerror(errno.ENOSPC) in str(error) else "start_failed"
        raise AttemptError(reason, f"No working folder could be made at {folder}: {error}") from error


async def _leave(program: "Program | None", folder: Path) -> None:
    if program is not None:
        await program.end()
    await asyncio.to_thread(remove_folder, folder)


class Program:
    """A `Running`: one process, what it started, and its output."""

    def __init__(self, job: Job, env: dict[str, str], folder: Path, log: Log):
        self._job, self._env, self._folder = job, env, folder
        self._limit = job.ram_mb * MB
        self._tree = Tree({name: env[name] for name in (OWNER, "GYOZA_RUN_ID", "GYOZA_ATTEMPT")})
        self._usage = Usage()
        self._oom_killed = False
        self._log = log
        self._output: Output | None = None
        self._ended: asyncio.Task[Exit] | None = None
        self.ran_s = 0.0

    async def start(self) -> None:
        reading, writing = os.pipe()
        self._output = await Output.read_from(reading, self._log)
        try:
            process = self._spawn(writing)
        finally:
            os.close(writing)
        self._main = psutil.Process(process.pid)
        self._tree.grow_from(process.pid)
        self._ended = asyncio.create_task(self._watch(_exit_of(process)))

    def _spawn(self, output: int) -> subprocess.Popen[bytes]:
        entry = list(_bundle_of(self._job)[0].entry)
        try:
            process = subprocess.Popen(
                entry,
                cwd=self._folder / "app",
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise AttemptError("bundle_broken", f"The bundle's entry command {entry} cannot be run: {error}") from error
        except OSError as error:
            reason = "bundle_broken" if error.errno == errno.ENOEXEC else "start_failed"
            raise AttemptError(reason, f"The op's command {entry} did not start: {error}") from error
        _forbid_core_files(process.pid)
        return process

    async def _watch(self, exited: "asyncio.Future[tuple[int, float]]") -> Exit:
        """Measure until the main process is gone, then end the rest, as a container does."""
        pause = 0.01
        while not exited.done():
            await self._measure()
            await asyncio.wait({exited}, timeout=pause)
            pause = min(pause * 2, LOOK_S)
        await kill_all(self._tree)
        assert self._output is not None
        await self._output.ended()
        code, seconds = exited.result()
        return Exit(
            exit_code=code if code >= 0 else 128 - code,
            signal=-code if code < 0 else None,
            oom_killed=self._oom_killed and code != 0,
            cpu_s=max(seconds, self._usage.cpu_s or 0.0),
            peak_ram_mb=self._usage.peak_ram_mb,
        )

    async def _measure(self) -> None:
        members = self._tree.look()
        used = await asyncio.to_thread(ram, members, self._limit) if len(members) > 1 else ram(members, self._limit)
        if members:
            self._usage.saw(sum(map(cpu_s, members)), used)
        if used > self._limit:
            self._oom_killed = True
            await kill_all(self._tree)

    async def wait(self) -> Exit:
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    def pids(self) -> frozenset[int]:
        return frozenset(process.pid for process in self._tree.look())

    async def stop(self, grace_s: float) -> None:
        assert self._ended is not None
        if not self._ended.done():
            with suppress(psutil.NoSuchProcess):
                self._main.terminate()
            await asyncio.wait({self._ended}, timeout=grace_s)
        await self.end()

    async def end(self) -> None:
        """Kill what is left and close what is open; also after a start that failed halfway."""
        await kill_all(self._tree)
        if self._ended is not None:
            await asyncio.wait({self._ended})
        if self._output is not None:
            await self._output.ended()

    async def log_tail(self, size: int = 2000) -> str:
        return self._log.tail(size)


class Output:
    """What comes through a pipe, into a log."""

    def __init__(self, pipe: asyncio.ReadTransport, stream: asyncio.StreamReader, log: Log):
        self._pipe, self._stream, self._log = pipe, stream, log
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def read_from(cls, descriptor: int, log: Log) -> "Output":
        stream = asyncio.StreamReader(limit=PART)
        file = os.fdopen(descriptor, "rb", buffering=0)
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
        return cls(pipe, stream, log)

    async def _read(self) -> None:
        while data := await self._stream.read(PART):
            self._log.write([(STDOUT, data)])

    async def ended(self) -> None:
        """Until the last byte; or for a while, where somebody who escaped holds the pipe open."""
        await asyncio.wait({self._reading}, timeout=LAST_BYTES_S)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._pipe.close()
        self._log.end()


def _forbid_core_files(pid: int) -> None:
    if sys.platform == "linux":
        import resource

        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


def _exit_of(process: subprocess.Popen[bytes]) -> "asyncio.Future[tuple[int, float]]":
    """Its exit code, negative for a signal, and the CPU seconds of it and all it waited for.

    A thread of its own waits, not one of the default pool, which is small and needed by others.
    """
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[tuple[int, float]] = loop.create_future()

    def wait() -> None:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ending = process.returncode, used.ru_utime + used.ru_stime
        with suppress(RuntimeError):  # the loop was closed before the process ended
            loop.call_soon_threadsafe(lambda: exited.done() or exited.set_result(ending))

    threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()
    return exited
