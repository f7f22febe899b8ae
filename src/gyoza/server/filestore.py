"""Where bytes lie: in the data folder, whole or not at all, closed to others.

Files are named by their SHA-256 (`FileStore`), everything else by what its owner calls it (`Folder`).
"""

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Arrived:
    """Bytes on disk that are not in place yet."""

    fresh: Path
    place: Path
    sha256: str
    size: int

    def adopt(self) -> None:
        """Put them in place; may be called again."""
        if self.fresh.exists():
            _make_folder(self.place.parent)
            self.fresh.replace(self.place)
            _make_durable(self.place.parent)


class FileStore:
    def __init__(self, folder: Path):
        self._folder = folder

    @asynccontextmanager
    async def received(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[Arrived]:
        """Streamed to disk under a temporary name, which is gone afterwards whether or not it was adopted."""
        fresh = self._made() / "incoming" / secrets.token_hex(12)
        fresh.parent.mkdir(exist_ok=True)
        hashed, size = hashlib.sha256(), 0
        try:
            with fresh.open("xb") as file:
                async for part in stream:
                    hashed.update(part)
                    size += len(part)
                    await asyncio.to_thread(file.write, part)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            yield Arrived(fresh, self.path(hashed.hexdigest()), hashed.hexdigest(), size)
        finally:
            fresh.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def discard(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    def is_ready(self) -> bool:
        return os.access(self._made(), os.W_OK)

    def _made(self) -> Path:
        _make_folder(self._folder)
        return self._folder


class Folder:
    """Bytes by name, as `gyoza.control.logs.Shelf` wants them: each a file, written once."""

    def __init__(self, root: Path):
        self._root = root

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(_write, self._root / name, data)

    async def read(self, name: str, start: int = 0) -> bytes:
        return await asyncio.to_thread(_read, self._root / name, start)

    async def discard(self, name: str) -> None:
        await asyncio.to_thread((self._root / name).unlink, missing_ok=True)

    async def discard_all(self, folder: str) -> None:
        await asyncio.to_thread(_remove, self._root / folder)


def _write(place: Path, data: bytes) -> None:
    fresh = place.with_name(f"{place.name}.part")
    _make_folder(place.parent)
    with fresh.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(place)
    _make_durable(place.parent)


def _read(place: Path, start: int) -> bytes:
    with place.open("rb") as file:
        file.seek(start)
        return file.read()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _make_folder(folder: Path) -> None:
    """With those above it, closed to others, and on disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _make_durable(folder.parent)


def _make_durable(folder: Path) -> None:
    """A rename lasts once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
