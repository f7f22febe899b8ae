"""The seam between a worker and what runs its attempts: Docker containers, or plain processes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gyoza.models.bundle import Bundle
from gyoza.worker.engines.log import Log

JOB = "gyoza-"
"""How the name of every job begins."""

Say = Callable[[str], object]
"""Takes a sentence for the run's timeline."""


def silent(_: str) -> None:
    """A `Say` for whoever does not want to know."""


@dataclass(frozen=True)
class Owner:
    """Whose work a container or process is: engines label everything with it and touch nothing else."""

    cluster: str
    host: str
    worker: str

    @property
    def mark(self) -> str:
        return f"{self.cluster}/{self.host}/{self.worker}"


@dataclass(frozen=True)
class Job:
    """One attempt as an engine sees it.

    `io_dir` is the host's folder with `inputs.json`; its parent must be closed to others (0700), because an engine
    opens `io_dir` itself to whatever user the program runs as. `ram_mb` counts 2^20 bytes. `archive` is the bundle's
    archive on this host, already checked against its digest; None where the op is an image alone. `gpus` are the
    UUIDs of exactly the GPUs (or parts of one, MIG) that the program may use.
    `image_digest` is what an earlier attempt of the run was run from (`Ready.digest`): then it must be that and nothing
    newer. `secrets_dir` is a folder of files that the program may read, closed to others like `io_dir`; None where it
    has none. `user` is what the op asks to run as.
    """

    run_id: str
    attempt: int
    io_dir: Path
    cpu_m: int
    ram_mb: int
    image: str | None = None
    image_digest: str | None = None
    bundle: Bundle | None = None
    archive: Path | None = None
    gpus: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    network: bool = True
    user: str | None = None
    secrets_dir: Path | None = None
    log: Log | None = field(default=None, compare=False)
    """Where the op's output goes; None: into a log of its own, beside `io_dir`, that ends with the program."""

    @property
    def name(self) -> str:
        """One for every attempt: no two of a name ever run beside each other."""
        return f"{JOB}{self.run_id}-{self.attempt}"

    @property
    def contract_env(self) -> dict[str, str]:
        """What the op IO interface promises besides `GYOZA_IO_DIR`; the op's own `env` cannot change it."""
        return {"GYOZA_RUN_ID": self.run_id, "GYOZA_ATTEMPT": str(self.attempt)}


@dataclass(frozen=True)
class Ready:
    """What was made ready to start: an image's id, or an unpacked environment's folder.

    `digest` pins it for the run's later attempts: a bundle's digest; an image's, with its repository; the id of an
    image that no registry knows.
    """

    name: str
    digest: str | None = None


@dataclass(frozen=True)
class Exit:
    """How a program ended: as a shell counts, `exit_code` is 128 + `signal` when a signal ended it.

    `oom_killed` when the memory limit ended it. `cpu_s` and `peak_ram_mb` are sampled: None for what was too short to
    be seen, and a little low for what was short.
    """

    exit_code: int
    signal: int | None = None
    oom_killed: bool = False
    cpu_s: float | None = None
    peak_ram_mb: int | None = None


class Running(Protocol):
    """A started program.

    `ran_s`: for how long it had run before this process took hold of it; 0 for what has ended by then.
    """

    ran_s: float

    async def wait(self) -> Exit:
        """Until it has ended by itself or by `stop`; may be asked again.

        AttemptError `start_failed` (an infrastructure loss) when the engine no longer knows it: somebody removed it.
        While the engine is out of reach this goes on waiting, for as long as that lasts.
        """
        ...

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, `grace_s` of patience, SIGKILL; returns once the engine confirms that nothing of it runs."""
        ...

    def pids(self) -> frozenset[int]:
        """The host's ids of its processes now; none where the engine's processes are out of this worker's sight."""
        ...

    async def log_tail(self, size: int = 2000) -> str:
        """The last `size` characters of what it wrote to stdout and stderr: when it has ended, of all that it wrote."""
        ...


class Engine(Protocol):
    """Where attempts run. Errors are `AttemptError` with the reason that the contract lists."""

    name: str

    async def can_run(self) -> str | None:
        """None when this engine answers on this machine; else one sentence that says why not."""
        ...

    def io_path(self, io_dir: Path) -> str:
        """`io_dir` as the program sees it."""
        ...

    async def ready(self, job: Job, say: Say = silent) -> Ready:
        """Bring what the job needs to this machine: pull the image, or build the bundle. Outside `start_s`.

        It stays here until `release`.
        """
        ...

    def release(self, job: Job) -> None:
        """What was made ready for the job, if anything was, is no longer needed for it."""
        ...

    def images(self) -> Sequence[str]:
        """Names and digests of what is here already, the newest used first: as last seen, so that nobody waits."""
        ...

    def started(self, job: Job, ready: Ready) -> AbstractAsyncContextManager[Running]:
        """Run it; on leaving, whatever happened, nothing of it is left: no process, no container."""
        ...

    def adopt(self, job: Job, ready: Ready) -> AbstractAsyncContextManager[Running | None]:
        """The same for what an earlier process of this owner started: it runs, or has ended, and is waited for.

        None where there is no such thing, or where it cannot be taken hold of: then nothing of it is left.
        """
        ...

    async def sweep(self, lives: Callable[[str], bool] = lambda name: False) -> int:
        """End and remove what an earlier process of this owner left behind; how many.

        Jobs that this process runs are left alone, and so are those whose name `lives`.
        """
        ...

    async def close(self) -> None: ...
