"""Bundles unpacked for plain processes: one folder for each bundle and Python, built once, shared by all its runs.

    <cache>/<key>/app, lib, ...    the archive's files
    <cache>/<key>/env/             a virtual environment of the worker's own Python, where the bundle needs Python
    <cache>/<key>/complete         written last: without it the folder is a leftover and built anew; holds the bundle's
                                   digest, and its time is that of the last use
    <cache>/<key>.lock             held while building, against other workers on this machine too

A virtual environment holds its own path, so it is built where it stays instead of being renamed into place.
"""

import asyncio
import fcntl
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines.bundles import REQUIREMENTS, broken, has_requirements, unpack
from gyoza.worker.engines.cleanup import remove_folder, to_the_end

_COMPLETE = "complete"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


async def environment(bundle: Bundle, archive: Path, cache: Path) -> Path:
    """The bundle's folder, built if need be. AttemptError `bundle_broken` where it does not build on this Python."""
    if bundle.python not in (None, PYTHON):
        raise AttemptError(
            "bundle_broken",
            f"The bundle is for Python {bundle.python}, but this process worker runs on Python {PYTHON}: build it for "
            f"Python {PYTHON}, or start a worker on Python {bundle.python} or one with Docker",
        )
    folder = cache / _key(bundle)
    if not _complete(folder).exists():
        await asyncio.to_thread(cache.mkdir, 0o700, True, True)
        async with _locked(folder.with_name(f"{folder.name}.lock")):
            if not _complete(folder).exists():
                await _build(bundle, archive, folder)
    now = time.time_ns()  # as exact as it is: the file system's own clock lags some milliseconds
    os.utime(_complete(folder), ns=(now, now))
    return folder


def digests_in(cache: Path, most: int = 200) -> list[str]:
    """Of the bundles that are ready here, the newest used first."""
    found: list[tuple[int, str]] = []
    for path in cache.glob(f"*/{_COMPLETE}"):
        with suppress(OSError):
            found.append((path.stat().st_mtime_ns, path.read_text()))
    return [digest for _, digest in sorted(found, reverse=True) if digest][:most]


def _key(bundle: Bundle) -> str:
    python = hashlib.sha256(f"{sys.version} {Path(sys.executable).resolve()}".encode()).hexdigest()
    return f"{bundle.digest.removeprefix('sha256:')[:32]}-py{PYTHON}-{python[:8]}"


def _complete(folder: Path) -> Path:
    return folder / _COMPLETE


@asynccontextmanager
async def _locked(path: Path) -> AsyncGenerator[None]:
    """The file's lock, across processes; asked for again and again, since a thread that waits cannot be cancelled."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.05)
        yield


async def _build(bundle: Bundle, archive: Path, folder: Path) -> None:
    built = False
    try:
        await to_the_end(asyncio.to_thread(_unpack_anew, bundle, archive, folder))
        if bundle.python is not None:
            await _make_env(folder, folder / "env")
        _complete(folder).write_text(bundle.digest)
        built = True
    finally:
        if not built:
            await to_the_end(asyncio.to_thread(remove_folder, folder))


def _unpack_anew(bundle: Bundle, archive: Path, folder: Path) -> None:
    remove_folder(folder)
    unpack(archive, folder, bundle)


async def _make_env(folder: Path, env: Path) -> None:
    packages = has_requirements(folder)
    how = [] if packages else ["--without-pip"]
    code, output = await _run([sys.executable, "-I", "-m", "venv", *how, str(env)])
    if code != 0:
        hint = "on Debian install python3-venv" if "ensurepip" in output else "look at this worker's Python"
        raise AttemptError("start_failed", f"No environment could be made for the bundle ({hint}): {output[-1500:]}")
    if not packages:
        return
    pip = [str(env / "bin" / "python"), "-I", "-m", "pip", "install", "--no-cache-dir", "--no-index", "--no-input"]
    wheels = ["--require-hashes", "--find-links", str(folder / "wheels"), "-r", str(folder / REQUIREMENTS)]
    code, output = await _run([*pip, "--disable-pip-version-check", *wheels])
    if code != 0:
        raise broken(f"The bundle's packages do not install on Python {PYTHON}: {output[-1500:].strip()}")


async def _run(command: list[str]) -> tuple[int, str]:
    """Exit code and what it wrote; cancelled, it and its children are killed first."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await to_the_end(process.wait())
    return process.returncode or 0, output.decode("utf-8", "replace")
