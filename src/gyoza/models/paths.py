"""Where a host keeps Gyoza's data; decided from what it is given, without looking at the disk.

A local server writes its API key there (`API_KEY_FILE`, mode 0600) and a client on the same host reads it, so both
sides must name the same folder: neither may decide it by itself.
"""

from collections.abc import Mapping
from pathlib import Path

API_KEY_FILE = "api-key"
ROOT_DATA_DIR = Path("/var/lib/gyoza")
"""Root's folder: PostgreSQL runs under another account there, which could not enter root's home."""


def data_dir(environ: Mapping[str, str], euid: int, user_data_dir: Path) -> Path:
    """`GYOZA_DATA_DIR`, else root's folder, else `user_data_dir`: what the platform gives this user for `gyoza`."""
    if named := environ.get("GYOZA_DATA_DIR"):
        return Path(named).absolute()
    return ROOT_DATA_DIR if euid == 0 else user_data_dir
