"""Who a worker is: random per host, kept in its folder; random per process, never kept."""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """`host_id` outlives the process, so that a restarted worker takes over what is its own; `instance` does not."""

    name: str
    host_id: str
    instance: str

    @classmethod
    def of(cls, name: str, folder: Path) -> "Identity":
        return cls(name, _kept(folder / "host-id"), secrets.token_hex(16))


def _kept(path: Path) -> str:
    if not path.exists():
        fresh = path.with_name(f"host-id.{secrets.token_hex(4)}")
        fresh.write_text(secrets.token_hex(16))
        fresh.rename(path)
    return path.read_text().strip()


def boot() -> str:
    """This boot of the machine; always the same where the system does not tell one from another."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
