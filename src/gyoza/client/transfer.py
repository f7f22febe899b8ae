"""Files on their way to a server and back; both clients share what is not waiting for the network."""

import hashlib
import mimetypes
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from stat import S_ISREG
from typing import Any, BinaryIO

from gyoza.client import calls
from gyoza.client.call import Call, Object
from gyoza.client.errors import DownloadBroken

CHUNK = 1 << 20
Source = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True)
class Upload:
    """An open file and what to call it; `size` is None where only reading will tell."""

    stream: BinaryIO
    name: str
    media_type: str
    size: int | None

    def chunk(self) -> bytes:
        return self.stream.read(CHUNK)

    def call(self, content: Any) -> Call[Object]:
        return calls.upload_file(self.name, content, self.media_type, self.size)


@contextmanager
def leaving(source: Source, name: str | None, media_type: str | None) -> Generator[Upload]:
    """`source` opened, if it is a path; a stream stays open and is read from where it stands."""
    if not isinstance(source, str | os.PathLike):
        yield _upload(source, name or "file", media_type, None)
        return
    path = Path(source)
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        yield _upload(stream, name or path.name, media_type, status.st_size if S_ISREG(status.st_mode) else None)


@contextmanager
def arriving(path: Path, sha256: str | None) -> Generator[Callable[[bytes], None]]:
    """A function that takes the bytes; they lie under `path` once all are there and right, and nothing does before."""
    hidden = path.with_name(f".{path.name}.{token_hex(4)}.part")
    digest = hashlib.sha256()
    try:
        with hidden.open("xb") as file:

            def take(data: bytes) -> None:
                file.write(data)
                digest.update(data)

            yield take
        if sha256 is not None and digest.hexdigest() != sha256:
            raise DownloadBroken(
                f"What arrived for '{path}' has another SHA-256 than what was stored: download it again"
            )
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)


def _upload(stream: BinaryIO, name: str, media_type: str | None, size: int | None) -> Upload:
    name = os.fsencode(name).decode(errors="replace")  # what no text can hold would not fit into a request
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Upload(stream, name, media_type or guessed, size)
