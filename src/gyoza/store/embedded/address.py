"""Where clients find the embedded PostgreSQL: a socket in its data folder, which is closed to others."""

import fcntl
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from gyoza.store.embedded.folder import ROLE, SOCKET, disk_errors

_SOCKET_PATH_BYTES = 103  # the smallest bound among the systems we run on


@contextmanager
def address(pgdata: Path) -> Generator[str]:
    """The URL of the PostgreSQL that serves `pgdata`.

    The path of a Unix socket is short by nature. PostgreSQL makes it by a relative path; a client gets there from a
    deep data folder through a link in a new folder that is closed to others. Cleaners of temporary files spare a folder
    that is locked.
    """
    if _fits(pgdata):
        yield _url(pgdata)
        return
    with disk_errors(pgdata.parent):
        short = tempfile.TemporaryDirectory(prefix="gyoza-", dir=_short_place(), ignore_cleanup_errors=True)
    with short as folder:
        link = Path(folder, "db")
        link.symlink_to(pgdata)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield _url(link)
        finally:
            os.close(handle)


def _fits(folder: Path) -> bool:
    # A comma separates hosts in a PostgreSQL URL.
    return len(os.fsencode(folder / SOCKET)) <= _SOCKET_PATH_BYTES and "," not in str(folder)


def _short_place() -> str:
    places = (tempfile.gettempdir(), "/tmp")
    return next((place for place in places if _fits(Path(place, "gyoza-12345678", "db"))), "/tmp")


def _url(host: Path) -> str:
    return f"postgresql://{ROLE}@/postgres?host={quote(str(host), safe='')}"
