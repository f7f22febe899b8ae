"""Unpacking a bundle's archive, of which nothing is trusted: not its names, links, sizes or counts."""

import errno
import json
import re
import shutil
import tarfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from gyoza.models.bundle import Bundle, BundleManifest
from gyoza.models.errors import AttemptError

PARTS = ("app", "lib", "wheels")
REQUIREMENTS = "requirements.lock"
MANIFEST_SIZE = 64 * 1024
ILL_NAMED = {None, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""OSErrors that the archive caused: entries in each other's way, and gzip's own faults, which have no number."""


@dataclass(frozen=True)
class Bounds:
    """How much an archive may hold: bytes when unpacked, and entries."""

    size: int = 64 * 2**30
    count: int = 200_000


def broken(detail: str) -> AttemptError:
    return AttemptError("bundle_broken", f"{detail}: build the bundle anew and deploy it (gyoza op deploy)")


def unpack(archive: Path, into: Path, bundle: Bundle, bounds: Bounds = Bounds()) -> BundleManifest:
    """Write the archive's files below `into`, which is empty, and answer what its `bundle.json` says.

    Plain files, folders, and symbolic links that stay inside; modes become 0755 or 0644. AttemptError `bundle_broken`
    where the archive is anything else or contradicts `bundle`; then what was written is the caller's to remove.
    """
    with _faults_named():
        into.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "r:gz") as tar:
            links = _write_all(tar, into, bounds)
        _link(links, into)
        for part in PARTS:
            (into / part).mkdir(exist_ok=True)
        return _manifest(into, bundle)


@contextmanager
def _faults_named() -> Generator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise broken(f"The bundle's archive cannot be read ({error})") from error
    except OSError as error:
        if error.errno in ILL_NAMED:
            raise broken(f"The bundle's archive cannot be read ({error})") from error
        reason = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "start_failed"
        raise AttemptError(reason, f"The bundle could not be unpacked on this worker: {error}") from error


def _write_all(tar: tarfile.TarFile, into: Path, bounds: Bounds) -> dict[PurePosixPath, str]:
    """Folders and files at once; the links, which are made last so that nothing is ever written through one."""
    links: dict[PurePosixPath, str] = {}
    size = 0
    for count, member in enumerate(tar, 1):
        size += member.size
        if count > bounds.count or size > bounds.size:
            raise broken(f"The bundle holds more than {bounds.count} entries or {bounds.size} bytes")
        path = _inside(member.name)
        if member.issym():
            links[path] = member.linkname
        elif member.isdir():
            (into / path).mkdir(mode=0o755, parents=True, exist_ok=True)
        elif member.isreg():
            _write(tar, member, into / path)
        else:
            raise broken(f"The bundle holds '{member.name}', which is neither a file, a folder nor a symbolic link")
    return links


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise broken(f"The bundle holds '{name}', which is not a path inside it")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise broken(f"The bundle's '{member.name}' cannot be read")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("xb") as target:
        shutil.copyfileobj(source, target, 1024 * 1024)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _link(links: dict[PurePosixPath, str], into: Path) -> None:
    for path, target in links.items():
        if len(path.parts) < 2 or any(parent in links for parent in path.parents):
            raise broken(f"The bundle's link '{path}' stands where a folder must")
        link = into / path
        link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if link.is_symlink() or link.exists():
            raise broken(f"The bundle holds '{path}' twice")
        link.symlink_to(target)
    root = into.resolve()
    for path, target in links.items():
        if PurePosixPath(target).is_absolute() or not _resolved(into / path).is_relative_to(root):
            raise broken(f"The bundle's link '{path}' leads out of it, to '{target}'")


def _resolved(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError) as error:  # a loop
        raise broken(f"The bundle's link '{link.name}' leads nowhere") from error


def _manifest(folder: Path, bundle: Bundle) -> BundleManifest:
    path = folder / "bundle.json"
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MANIFEST_SIZE:
        raise broken("The bundle has no bundle.json")
    try:
        data: Any = json.loads(path.read_bytes())
        manifest = BundleManifest.from_dict(cast(dict[str, Any], data) if isinstance(data, dict) else {})
    except (ValueError, RecursionError) as error:
        raise broken(f"The bundle's bundle.json cannot be read ({error})") from error
    if (list(manifest.entry), manifest.python) != (list(bundle.entry), bundle.python):
        raise broken("The bundle's bundle.json says another entry command or Python than its definition")
    return manifest


def has_requirements(folder: Path) -> bool:
    """Whether the unpacked bundle needs packages; a file of comments needs none."""
    path = folder / REQUIREMENTS
    if path.is_symlink() or not path.is_file():
        return False
    return re.search(r"^\s*[^#\s]", path.read_text("utf-8", "replace"), re.MULTILINE) is not None
