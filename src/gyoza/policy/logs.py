"""What of the bytes that a worker sends goes into an attempt's log, and into which chunks a log is divided."""

from collections.abc import Iterator
from dataclasses import dataclass

CHUNK = 2**20
"""Bytes of the largest chunk."""
JOINED_BELOW = 64 * 2**10
"""A last chunk with fewer bytes is joined with what follows, so that many small additions make few chunks."""
_MARKER = "\n[gyoza: the log was cut here: it reached {} bytes]\n"


@dataclass(frozen=True)
class Addition:
    """Bytes for the end of a log. `cut`: the log is full, the last of these bytes say so, and none come after them."""

    data: bytes
    cut: bool = False


def addition(size: int, offset: int, data: bytes, limit: int) -> Addition:
    """What of `data` is new to a log of `size` bytes and fits into `limit`; `offset` leaves no gap behind `size`."""
    fresh, room = data[size - offset :], max(limit - size, 0)
    if len(fresh) <= room:
        return Addition(fresh)
    return Addition(fresh[:room] + _MARKER.format(size + room).encode(), cut=True)


def divided(data: bytes) -> Iterator[bytes]:
    return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
