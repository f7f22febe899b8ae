"""What a container is allowed: the configuration that the Docker engine is given for an attempt."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyoza.worker.engines import Job, Owner, Ready

IO = "/gyoza/io"
SECRETS = "/gyoza/secrets"
OP_USER = "65532:65532"
PIDS = 4096
LEAST_RAM_MB = 6
"""The engine refuses less."""
RECORD_BYTES = 16 * 2**20
LOGS = {"Type": "local", "Config": {"max-size": str(RECORD_BYTES), "max-file": "2", "compress": "false"}}
"""The engine's own record of the output, in two files. `json-file`, the usual driver, spoils what is not UTF-8."""


@dataclass(frozen=True)
class Host:
    """What must be known of the engine's machine.

    `rootless`: the engine runs as the worker's own user; `remapped`: users have other numbers inside of containers;
    `may_be_root`: the worker's owner lets containers run as root; `disk`: the folder where the engine keeps its images.
    """

    cpus: int
    rootless: bool = False
    disk: Path = Path("/var/lib/docker")
    remapped: bool = False
    may_be_root: bool = False


def labels(owner: Owner) -> dict[str, str]:
    return {"gyoza.cluster": owner.cluster, "gyoza.host": owner.host, "gyoza.worker": owner.worker}


def job_labels(owner: Owner, job: Job) -> dict[str, str]:
    return labels(owner) | {"gyoza.run": job.run_id, "gyoza.attempt": str(job.attempt)}


def own_user(host: Host) -> str:
    """The user inside a container to whom the worker's files belong."""
    return "0:0" if host.rootless else f"{os.geteuid()}:{os.getegid()}"


def nobody(host: Host) -> str:
    """Nobody in particular where the worker is root; else the worker's own user, so that it can remove the files."""
    return OP_USER if os.geteuid() == 0 else own_user(host)


def is_bundle(job: Job, ready: Ready) -> bool:
    """Whether what starts is the bundle, and not an image that came before it."""
    return job.bundle is not None and ready.digest == job.bundle.digest


def container_config(job: Job, ready: Ready, owner: Owner, host: Host, *, user: str, network: str) -> dict[str, Any]:
    """A bundle's entry replaces whatever its base image would start; an image alone starts as it says itself."""
    mounts = {"Mounts": [io_mount(job.io_dir), *_secrets_mount(job)]}
    config: dict[str, Any] = {
        "Image": ready.name,
        "Labels": job_labels(owner, job),
        "User": user,
        "Env": [f"{name}={value}" for name, value in _env(job, user == nobody(host)).items()],
        "HostConfig": {**limits(job.ram_mb, job.cpu_m, host), "NetworkMode": network, **mounts, **_devices(job)},
    }
    if job.bundle is not None and is_bundle(job, ready):
        config |= {"Entrypoint": list(job.bundle.entry), "Cmd": []}
    return config


def limits(ram_mb: int, cpu_m: int, host: Host) -> dict[str, Any]:
    """What holds for every container, whatever is in it: nothing of the host's is shared, and no right is had."""
    ram = max(ram_mb, LEAST_RAM_MB) * 2**20
    return {
        "Memory": ram,
        "MemorySwap": ram,
        "ShmSize": ram,  # counted as memory anyway; the usual 64 MB breaks programs that share tensors
        "NanoCpus": min(max(cpu_m, 10), host.cpus * 1000) * 1_000_000,
        "PidsLimit": PIDS,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Init": True,
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        "LogConfig": LOGS,
    }


def io_mount(io_dir: Path) -> dict[str, str]:
    return {"Type": "bind", "Source": str(io_dir), "Target": IO}


def _secrets_mount(job: Job) -> list[dict[str, Any]]:
    if job.secrets_dir is None:
        return []
    return [{"Type": "bind", "Source": str(job.secrets_dir), "Target": SECRETS, "ReadOnly": True}]


def _env(job: Job, is_nobody: bool) -> dict[str, str]:
    # Nobody has no home: without this, whatever writes to ~ would try the root folder.
    env = {"HOME": "/tmp"} if is_nobody else {}
    secrets = {"GYOZA_SECRETS_DIR": SECRETS} if job.secrets_dir else {}
    return env | dict(job.env) | _gpu_env(job) | job.contract_env | {"GYOZA_IO_DIR": IO} | secrets


def _gpu_env(job: Job) -> dict[str, str]:
    # Where NVIDIA's runtime is the default one, an image could ask for all GPUs by this variable.
    if not job.gpus:
        return {"NVIDIA_VISIBLE_DEVICES": "void"}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "NVIDIA_VISIBLE_DEVICES": ",".join(job.gpus)}


def _devices(job: Job) -> dict[str, Any]:
    if not job.gpus:
        return {}
    return {"DeviceRequests": [{"DeviceIDs": list(job.gpus), "Capabilities": [["gpu"]]}]}


def open_to_all(io_dir: Path) -> None:
    """Let the program's user, whoever that is, read what is in `io_dir` and write beside it; links are left alone."""
    io_dir.chmod(0o777)
    for parent, folders, files in os.walk(io_dir):
        for name in (*folders, *files):
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o777 if path.is_dir() else path.stat().st_mode | 0o444)


def open_to(uid: int | None, secrets_dir: Path) -> None:
    """Let the op read its secrets, and nobody else where it is known who the op is.

    Where it is not, all may who get as far: on the host nobody does, and in the container there is but the op.
    """
    for path in (*secrets_dir.iterdir(), secrets_dir):
        mode = 0o500 if path == secrets_dir else 0o400
        if uid is None or os.geteuid() not in (0, uid):
            mode |= mode >> 3 | mode >> 6
        elif uid != os.geteuid():
            os.chown(path, uid, -1)
        path.chmod(mode)


def strangers_in(io_dir: Path) -> bool:
    """Whether anything there belongs to somebody else than this process, or cannot be looked at."""
    me, found = os.geteuid(), False

    def fault(_: OSError) -> None:
        nonlocal found
        found = True

    for parent, folders, files in os.walk(io_dir, onerror=fault):
        if found or any(Path(parent, name).lstat().st_uid != me for name in (*folders, *files)):
            return True
    return found
