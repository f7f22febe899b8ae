"""What a plain process writes to stdout and stderr, kept in a bounded file."""

import asyncio
from pathlib import Path


class BoundedLog(asyncio.Protocol):
    """The end of a stream, in at most `size` bytes of disk: two files, the older dropped when both are full."""

    def __init__(self, path: Path, size: int = 32 * 2**20):
        self._path, self._older = path, path.with_name(f"{path.name}.1")
        self._half = size // 2
        self._file = path.open("wb", buffering=0)
        self._written = 0
        self._closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        if self._written + len(data) > self._half:
            self._file.close()
            self._path.replace(self._older)
            self._file = self._path.open("wb", buffering=0)
            self._written = 0
        try:
            self._written += self._file.write(data)
        except OSError:
            return  # the disk is full: an op's log is not worth its run

    def connection_lost(self, exc: Exception | None) -> None:
        self._file.close()
        self._closed.set()

    async def ended(self, within_s: float) -> bool:
        """Whether the last writer closed the stream in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._closed.wait()
        except TimeoutError:
            return False
        return True

    def tail(self, size: int) -> str:
        """The last `size` characters; undecodable bytes are shown as U+FFFD."""
        data = b"".join(_end_of(path, 4 * size) for path in (self._older, self._path))
        return data.decode("utf-8", "replace")[-size:] if size > 0 else ""


def _end_of(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - size, 0))
            return file.read(size)
    except FileNotFoundError:
        return b""
