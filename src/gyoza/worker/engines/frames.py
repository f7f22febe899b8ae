"""The Docker Engine's raw stream of a container's output, taken apart. No I/O.

https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
"""

STDOUT, STDERR = 1, 2
_HEADER = 8
"""Bytes before each frame: the stream, three zeros, and how many bytes follow (big endian)."""


class Frames:
    """Bytes in, in pieces of any size; whole frames out."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that these bytes end, each with its stream."""
        data, at, found = self._rest + data, 0, list[tuple[int, bytes]]()
        while len(data) >= at + _HEADER:
            end = at + _HEADER + int.from_bytes(data[at + 4 : at + _HEADER], "big")
            if end > len(data):
                break
            found.append((data[at], data[at + _HEADER : end]))
            at = end
        self._rest = data[at:]
        return found
