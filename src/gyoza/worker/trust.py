"""Opening what an op has written, trusting none of it: regular files inside its folder only, through no link."""

import errno
import os
import stat
from pathlib import Path, PurePosixPath

_SAFE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Untrusted(Exception):
    """What is there is not what it must be; the text says what it is."""


def open_regular(folder: Path, name: str) -> int | None:
    """A descriptor of the regular file `name` (relative, also nested) in `folder`; None where there is nothing."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise Untrusted(f"'{name}' does not name a file inside the op's folder")
    at = _opened(folder, None, name, os.O_DIRECTORY)
    for part in parts[:-1]:
        at = _inner(part, at, name, os.O_DIRECTORY)
    return _regular(_inner(parts[-1], at, name), name)


def read_regular(folder: Path, name: str, limit: int) -> bytes | None:
    """The bytes of a regular file that has at most `limit` of them; None where there is nothing."""
    descriptor = open_regular(folder, name)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Untrusted(f"'{name}' is larger than {limit} bytes")
    return data


def _inner(part: str, at: int | None, name: str, more: int = 0) -> int | None:
    """`part` of the folder `at`, which is closed; None is nothing, and in it is nothing."""
    if at is None:
        return None
    try:
        return _opened(part, at, name, more)
    finally:
        os.close(at)


def _opened(part: str | Path, at: int | None, name: str, more: int = 0) -> int | None:
    try:
        return os.open(part, _SAFE | more, dir_fd=at)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise Untrusted(f"'{name}' is a symbolic link, or lies behind one: write a regular file") from error
        raise Untrusted(f"'{name}' cannot be read: {error.strerror}") from error


def _regular(descriptor: int | None, name: str) -> int | None:
    if descriptor is not None and not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Untrusted(f"'{name}' is not a regular file")
    return descriptor
