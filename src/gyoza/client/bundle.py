"""Packing an op's folder into a bundle: the same content gives the same bytes. Layout: `gyoza.models.bundle`."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import gyoza
from gyoza.client.project import FILE, Project, running_python
from gyoza.client.wheels import LOCK, locked_wheels
from gyoza.models.bundle import BundleManifest, base_image
from gyoza.models.errors import ProjectError

IGNORE_FILE = ".gyozaignore"
# Version control, what tools leave behind, and `.env`: secrets are no part of an op.
ALWAYS_IGNORED = (
    *(".git", ".hg", ".svn", "__pycache__", "*.pyc", ".venv", ".env", ".DS_Store"),
    *(".pytest_cache", ".ruff_cache", ".mypy_cache"),
    # What they say is in the definition; a new time-out must not mean a new image.
    *(f"/{FILE}", f"/{IGNORE_FILE}"),
)

Content = Path | bytes


@dataclass(frozen=True)
class PackedBundle:
    """An archive on disk; `digest` is `sha256:<hex>` of its bytes, `size` their number."""

    path: Path
    digest: str
    size: int
    manifest: BundleManifest


def pack(project: Project, out_dir: Path) -> PackedBundle:
    """Writes `<name>-<digest>.tar.gz` into `out_dir`; ProjectError where the folder or its requirements will not do."""
    manifest = BundleManifest(project.argv, project.python, project.base_image or base_image(project.python))
    out_dir.mkdir(parents=True, exist_ok=True)
    contents = _contents(project, manifest, out_dir)
    with tempfile.NamedTemporaryFile(dir=out_dir, prefix=".packing-", delete=False) as file:
        half = Path(file.name)
    try:
        _write(contents, half)
        with half.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path = half.replace(out_dir / f"{project.name}-{digest[:12]}.tar.gz")
    finally:
        half.unlink(missing_ok=True)
    return PackedBundle(path, f"sha256:{digest}", path.stat().st_size, manifest)


def _contents(project: Project, manifest: BundleManifest, out_dir: Path) -> dict[str, Content]:
    """What goes where in the archive."""
    contents: dict[str, Content] = {"bundle.json": json.dumps(manifest.to_dict(), indent=1).encode() + b"\n"}
    top = project.folder.resolve()
    for path in _files(top, _ignored(top), out_dir.resolve()):
        contents[f"app/{path.relative_to(top).as_posix()}"] = _checked(path, top)
    if project.entry:
        ours = Path(gyoza.__file__).parent / "op"
        contents["lib/gyoza/__init__.py"] = b""
        contents |= {f"lib/gyoza/op/{path.name}": path for path in ours.glob("*.py")}
    if project.requirements:
        wheels = locked_wheels(project.requirements, project.python or running_python())
        contents[LOCK] = wheels / LOCK
        contents |= {f"wheels/{path.name}": path for path in wheels.glob("*.whl")}
    return contents


def _ignored(folder: Path) -> Sequence[str]:
    """Patterns as in .gitignore, without `!`: one with a slash inside is a path from the top, else a name anywhere."""
    path = folder / IGNORE_FILE
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    if negated := next((line for line in lines if line.startswith("!")), None):
        raise ProjectError(f"{path}: '{negated}': exceptions with '!' are not supported, name what to leave out")
    return (*ALWAYS_IGNORED, *(line for line in lines if line and not line.startswith("#")))


def _files(folder: Path, ignored: Sequence[str], out_dir: Path, below: str = "") -> Iterator[Path]:
    """Plain files and links, in the folder and below it; `below` is where the folder is in the project."""
    for path in sorted(folder.iterdir()):
        inside = f"{below}{path.name}"
        is_dir = path.is_dir() and not path.is_symlink()
        if path == out_dir or any(_matches(inside, is_dir, pattern) for pattern in ignored):
            continue
        if is_dir:
            yield from _files(path, ignored, out_dir, f"{inside}/")
        elif path.is_symlink() or path.is_file():
            yield path
        else:
            raise ProjectError(f"{path} is neither a file nor a folder: name it in {IGNORE_FILE}")


def _checked(path: Path, top: Path) -> Path:
    if path.is_symlink() and (path.readlink().is_absolute() or not path.resolve().is_relative_to(top)):
        raise ProjectError(f"{path} is a link that leads out of {top}: copy the file, or name it in {IGNORE_FILE}")
    return path


def _matches(path: str, is_dir: bool, pattern: str) -> bool:
    if pattern.endswith("/") and not is_dir:
        return False
    stem = pattern.rstrip("/")
    return fnmatchcase(path, stem.lstrip("/")) if "/" in stem else fnmatchcase(path.rpartition("/")[2], stem)


def _write(contents: Mapping[str, Content], path: Path) -> None:
    """Sorted, without times, owners or a name in the gzip header. Wheels are compressed already: level 1 will do."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in sorted(contents.items()):
            _add(archive, name, content)


def _add(archive: tarfile.TarFile, name: str, content: Content) -> None:
    member = tarfile.TarInfo(name)
    member.mode = 0o644
    if isinstance(content, bytes):
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    elif content.is_symlink():
        member.type, member.linkname = tarfile.SYMTYPE, content.readlink().as_posix()
        archive.addfile(member)
    else:
        _add_file(archive, member, content)


def _add_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        member.size = found.st_size
        member.mode = 0o755 if found.st_mode & 0o100 else 0o644
        archive.addfile(member, file)
