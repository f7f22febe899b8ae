"""What a server is told: options over environment over defaults."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from platformdirs import user_data_path

from gyoza.control.keys import new_text
from gyoza.models.errors import StartUpError
from gyoza.models.paths import API_KEY_FILE, data_dir
from gyoza.policy.liveness import Pace


@dataclass(frozen=True)
class Settings:
    """`database_url` None: the embedded database of `data_dir`. `api_key` None: the one kept in `data_dir`.

    `retention_days`: how long runs are kept after their end; 0 for ever.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 5555
    workers: int = 1
    log_level: str = "info"
    database_url: str | None = field(default=None, repr=False)
    direct_url: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    pace: Pace = field(default_factory=Pace)
    retention_days: float = 30
    log_limit_mb: int = 64

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], **options: object) -> "Settings":
        """Options that are None count as not given."""
        said: dict[str, object] = {
            "data_dir": data_dir(environ, os.geteuid(), user_data_path("gyoza", appauthor=False)),
            "host": environ.get("GYOZA_HOST"),
            "port": _whole(environ, "GYOZA_PORT", 0, 65535),
            "workers": _whole(environ, "GYOZA_SERVER_WORKERS", 1, 256),
            "log_level": environ.get("GYOZA_LOG_LEVEL"),
            "database_url": environ.get("GYOZA_DATABASE_URL"),
            "direct_url": environ.get("GYOZA_DATABASE_DIRECT_URL"),
            "api_key": _a_key(environ.get("GYOZA_API_KEY"), "GYOZA_API_KEY"),
            "retention_days": _days(environ, "GYOZA_RETENTION_DAYS"),
            "log_limit_mb": _whole(environ, "GYOZA_LOG_LIMIT_MB", 1, 2**20),
            "pace": Pace(_seconds(environ, "GYOZA_HEARTBEAT_S", 5), _seconds(environ, "GYOZA_LEASE_S", 20)),
        }
        said.update({name: value for name, value in options.items() if value is not None})
        return cls(**{name: value for name, value in said.items() if value not in (None, "")})  # type: ignore[arg-type]

    @property
    def keep_for(self) -> timedelta | None:
        return timedelta(days=self.retention_days) if self.retention_days else None

    @property
    def url(self) -> str:
        return f"http://{_bracketed(self.host)}:{self.port}"


def kept_api_key(folder: Path) -> str:
    """The key of this data folder, made on first use, in a file that only its owner can read."""
    path = folder / API_KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write_once(path, new_text())
        return _a_key(path.read_text().strip(), str(path)) or _no_key(path)
    except OSError as error:
        raise StartUpError(
            f"Data folder {folder} cannot be used ({error.strerror}): make it writable, or set GYOZA_DATA_DIR"
        ) from error


def _write_once(path: Path, text: str) -> None:
    """Two servers that start together keep one key: the first link wins."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def _a_key(text: str | None, where: str) -> str | None:
    """`text`, where a header can carry it as it is; its text is told nobody."""
    if text and not (text.isascii() and text.isprintable() and text == text.strip()):
        raise StartUpError(f"The API key in {where} holds characters that no header can carry: choose another")
    return text


def _no_key(path: Path) -> str:
    raise StartUpError(f"The file {path} holds no API key: delete it, and the next start makes one")


def _whole(environ: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdecimal() or not least <= int(text) <= most:
        raise StartUpError(f"{name} must be a whole number from {least} to {most}, not '{text}'")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 < value < 86400:
        raise StartUpError(f"{name} must be a number of seconds above 0, not '{text}'")
    return value


def _days(environ: Mapping[str, str], name: str) -> float | None:
    text = environ.get(name)
    if not text:
        return None
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", text):
        raise StartUpError(f"{name} must be a number of days, or 0 to keep runs for ever, not '{text}'")
    return float(text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
