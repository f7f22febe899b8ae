"""The wheels of an op's requirements: resolved once, locked by their hashes, kept in the user's cache.

They are for Linux, where workers run, on this machine's architecture; on a host that is not Linux its own wheels come
along, in the same versions, so that a process worker there can run the op too. pip judges environment markers by the
machine it runs on: a requirement that only exists on Linux (`; sys_platform == 'linux'`) needs a Linux host to pack.
"""

import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from gyoza.models.errors import ProjectError

LOCK = "requirements.lock"
_GLIBC_MINORS = (17, 12, 5, *range(18, 37))
"""Of manylinux, most portable first; Debian 12 has glibc 2.36."""
_LAST_LINES = 6


def locked_wheels(requirements: Sequence[str], python: str) -> Path:
    """A folder with `requirements.lock` and every wheel it names. Cached: a second call needs no network."""
    kept = user_cache_path("gyoza", appauthor=False) / "wheels" / _key(requirements, python)
    if (kept / LOCK).is_file():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".fetching-") as scratch:
        fetched = Path(scratch) / "wheels"
        fetched.mkdir()
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        _fetch(wanted, fetched, python)
        (fetched / LOCK).write_text(lock_of(fetched), encoding="utf-8")
        try:
            fetched.rename(kept)
        except OSError:
            # Another process was faster; what it fetched is as good.
            if not (kept / LOCK).is_file():
                raise
    return kept


def lock_of(folder: Path) -> str:
    """`name==version --hash=sha256:...`, one line for each package among the wheels in `folder`."""
    hashes: dict[str, list[str]] = {}
    for wheel in sorted(folder.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        package = f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        hashes.setdefault(package, []).append(f"--hash=sha256:{digest}")
    return "".join(f"{package} {' '.join(found)}\n" for package, found in sorted(hashes.items()))


def _key(requirements: Sequence[str], python: str) -> str:
    told = json.dumps([1, sorted(requirements), python, sys.platform, _machine()])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _fetch(wanted: Path, into: Path, python: str) -> None:
    for_linux = ["--implementation", "cp", "--python-version", python, *_linux_tags()]
    is_linux = sys.platform.startswith("linux")
    if failed := _download(wanted, into, *for_linux):
        # Some package has no wheel. This machine can build one, for the Python and the system that it has itself.
        if is_linux and python == f"{sys.version_info.major}.{sys.version_info.minor}":
            failed = _pip("wheel", "--prefer-binary", "--wheel-dir", str(into), "-r", str(wanted))
        if failed:
            raise ProjectError(
                f"pip cannot get the requirements for Python {python} on Linux {_machine()} "
                f"({', '.join(wanted.read_text(encoding='utf-8').split())}):\n{failed}"
            )
    if not is_linux:
        same = wanted.with_name("constraints.txt")
        same.write_text(re.sub(r" --hash.*", "", lock_of(into)), encoding="utf-8")
        if failed := _download(wanted, into, "--python-version", python, "-c", str(same)):
            raise ProjectError(f"pip cannot get the requirements for Python {python} on this machine:\n{failed}")


def _download(wanted: Path, into: Path, *target: str) -> str | None:
    return _pip("download", "--only-binary=:all:", "--dest", str(into), "-r", str(wanted), *target)


def _pip(*arguments: str) -> str | None:
    """None when all went well, else the last lines of what pip said."""
    if importlib.util.find_spec("pip") is None:
        raise ProjectError(
            f"Packing the requirements needs pip, which {sys.executable} does not have: "
            f"install it with `{sys.executable} -m ensurepip`, or `uv pip install pip`"
        )
    environment = {
        "PIP_RETRIES": "2",
        # Wheels that are built here come out the same each time.
        "SOURCE_DATE_EPOCH": "315532800",
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return "\n".join(said[-_LAST_LINES:])


def _linux_tags() -> list[str]:
    tags = [f"manylinux_2_{minor}_{_machine()}" for minor in _GLIBC_MINORS]
    old = [f"manylinux{year}_{_machine()}" for year in ("2014", "2010", "1")]
    return [word for tag in (*tags[:3], *old, *tags[3:], f"linux_{_machine()}") for word in ("--platform", tag)]


def _machine() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
