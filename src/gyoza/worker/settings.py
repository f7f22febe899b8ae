"""What a worker is told: options over environment over defaults."""

import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gyoza.client.local import data_dir
from gyoza.models.errors import StartUpError
from gyoza.worker.engines.disk import Watermark

RUNTIMES = ("auto", "docker", "process")
_SWITCHES = {"": False, "0": False, "no": False, "false": False, "1": True, "yes": True, "true": True}
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")


@dataclass(frozen=True)
class WorkerSettings:
    """`cpu` in CPUs; None for what is to be measured. `drain_s`: how long runs may go on after the first signal."""

    name: str
    folder: Path
    server_url: str | None = None
    runtime: str = "auto"
    tags: Sequence[str] = ()
    cpu: float | None = None
    ram_mb: int | None = None
    slots: int | None = None
    drain_s: float = 30.0
    health_port: int | None = None
    base_image: str | None = None
    allowed_images: Sequence[str] = ()
    image_disk: Watermark = field(default_factory=Watermark)
    log_limit_mb: int = 64
    allow_root: bool = False
    secrets: Path | None = None

    @property
    def attempts(self) -> Path:
        """Where each attempt has its folder."""
        return self.folder / "attempts"

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        *,
        name: str | None = None,
        server_url: str | None = None,
        runtime: str | None = None,
        tags: str | None = None,
        cpu: float | None = None,
        ram_mb: int | None = None,
        slots: int | None = None,
        drain_s: float | None = None,
        health_port: int | None = None,
    ) -> "WorkerSettings":
        """Options that are None count as not given; `tags` and the allow-list are separated by commas."""
        named = name or environ.get("GYOZA_WORKER_NAME") or _host_name()
        if not _NAME.match(named):
            raise StartUpError(f"'{named}' is no worker name: use letters, digits, dots, dashes (--name)")
        wanted = runtime or environ.get("GYOZA_RUNTIME") or "auto"
        if wanted not in RUNTIMES:
            raise StartUpError(f"'{wanted}' is no runtime: choose one of {', '.join(RUNTIMES)} (--runtime)")
        if cpu is not None and round(cpu, 3) != cpu:
            raise StartUpError(f"{cpu} CPUs cannot be given: write at most three decimals (--cpu)")
        return cls(
            name=named,
            folder=data_dir() / "workers" / named,
            server_url=server_url,
            runtime=wanted,
            tags=_listed(tags or environ.get("GYOZA_WORKER_TAGS")),
            cpu=cpu,
            ram_mb=ram_mb,
            slots=slots,
            drain_s=30.0 if drain_s is None else drain_s,
            health_port=_port(environ.get("GYOZA_WORKER_HEALTH_PORT")) if health_port is None else health_port,
            base_image=environ.get("GYOZA_BASE_IMAGE") or None,
            allowed_images=_listed(environ.get("GYOZA_ALLOWED_IMAGES")),
            image_disk=_watermark(environ.get("GYOZA_IMAGE_DISK_PERCENT")),
            log_limit_mb=_megabytes(environ.get("GYOZA_LOG_LIMIT_MB") or "64", "GYOZA_LOG_LIMIT_MB"),
            allow_root=_switched("GYOZA_ALLOW_ROOT", environ),
            secrets=Path(environ.get("GYOZA_SECRETS_DIR") or data_dir() / "secrets"),
        )


def make_folder(folder: Path) -> None:
    """Closed to others: an attempt's own folder inside is opened to whatever user its program runs as."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StartUpError(
            f"The worker's folder {folder} cannot be used ({error.strerror}): set GYOZA_DATA_DIR to one that can"
        ) from error
    if not os.access(folder, os.W_OK):
        raise StartUpError(f"The worker's folder {folder} is not writable: set GYOZA_DATA_DIR to one that is")


def _port(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise StartUpError(f"GYOZA_WORKER_HEALTH_PORT is '{text}': set it to a port, 1 to 65535")
    return int(text)


def _megabytes(text: str, name: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 2**20:
        raise StartUpError(f"{name} must be a whole number from 1 to {2**20}, not '{text}'")
    return int(text)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _watermark(text: str | None) -> Watermark:
    """`85/75`: above the first percentage images are removed, down to the second."""
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text or "85/75")
    high, low = map(int, found.groups()) if found else (0, 1)
    if not low <= high <= 100:
        raise StartUpError(
            f"'{text}' is no watermark: GYOZA_IMAGE_DISK_PERCENT is two percentages, 85/75 say, the first no smaller"
        )
    return Watermark(high, low)


def _switched(name: str, environ: Mapping[str, str]) -> bool:
    said = environ.get(name, "").lower()
    if said not in _SWITCHES:
        raise StartUpError(f"'{said}' says neither yes nor no: set {name} to 1 or 0")
    return _SWITCHES[said]


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("-._") or "worker"
