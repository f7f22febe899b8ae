"""Where files' bytes lie: in the data folder, named by their SHA-256, whole or not at all."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20


@dataclass(frozen=True)
class Stored:
    sha256: str
    size: int


class FileStore:
    def __init__(self, folder: Path):
        self._folder = folder

    async def put(self, stream: AsyncIterator[bytes]) -> Stored:
        """Streamed to disk under a temporary name, made durable, renamed when whole."""
        fresh = self._folder / "incoming" / secrets.token_hex(12)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        hashed, size = hashlib.sha256(), 0
        try:
            with fresh.open("xb") as file:
                async for part in stream:
                    hashed.update(part)
                    size += len(part)
                    await asyncio.to_thread(file.write, part)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            self._adopt(fresh, hashed.hexdigest())
        finally:
            fresh.unlink(missing_ok=True)
        return Stored(hashed.hexdigest(), size)

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def delete(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    def is_ready(self) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.access(self._folder, os.W_OK)

    def _adopt(self, fresh: Path, sha256: str) -> None:
        path = self.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(path)
