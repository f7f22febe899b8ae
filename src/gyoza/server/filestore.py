"""Where files' bytes lie: in the data folder, named by their SHA-256, whole or not at all, closed to others."""

import asyncio
import hashlib
import os
import secrets
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
            self.place.parent.mkdir(parents=True, exist_ok=True)
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
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder


def _make_durable(folder: Path) -> None:
    """A rename lasts once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
