"""What a server on this host left for its own clients: the data folder and the API key in it."""

import os
import sys
from pathlib import Path

from platformdirs import user_data_path

from gyoza.models import paths


def data_dir() -> Path:
    return paths.data_dir(os.environ, _euid(), user_data_path("gyoza", appauthor=False))


def local_api_key() -> str | None:
    """The key that a local server wrote; None where there is none, or where this user may not read it."""
    try:
        return (data_dir() / paths.API_KEY_FILE).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _euid() -> int:
    return os.geteuid() if sys.platform != "win32" else 1
