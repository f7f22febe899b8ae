"""What is kept of an attempt on disk: whole records in their order, whatever was torn, and whatever the disk does."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gyoza.worker.spool import FILE, Spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attempts" / "run-1" / FILE


def report(seq: int, text: str = "") -> dict[str, Any]:
    return {"run_id": "run", "attempt": 1, "seq": seq, "events": [{"type": "INFO", "msg": text}]}


def told(spool: Spool) -> list[int]:
    """The numbers of the reports that are still to be sent, in order."""
    return [msgspec.json.decode(each)["seq"] for each in spool.waiting.values()]


@contextmanager
def full_disk(path: Path, more: int) -> Iterator[None]:
    """No file of this process may become larger than that one is now and `more` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.stat().st_size if path.exists() else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_kept_is_read_again(path: Path) -> None:
    spool = Spool(path)
    spool.keep(a=1, b=[2])
    spool.add(report(1), {"a": 3})
    spool.add(report(2), {})
    spool.judged(1)
    again = Spool.read(path)
    assert (again.recall("a", int), again.recall("b", list[int]), again.recall("c", int)) == (3, [2], None)
    assert (again.seq, told(again)) == (2, [2])


def test_json_is_kept_as_it_was_written(path: Path) -> None:
    odd = b'{ "big":1e400,\n "long": 0.1000000000000000055511151231257827 }'
    Spool(path).keep(outputs=msgspec.Raw(odd))
    assert bytes(Spool.read(path).recall("outputs", msgspec.Raw) or b"") == odd


def test_nobody_else_may_read_it(path: Path) -> None:
    Spool(path).keep(lease="secret")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_torn_at_any_byte_what_was_whole_before_counts_and_goes_on(path: Path) -> None:
    spool, ends = Spool(path), [0]
    for seq in range(1, 6):
        spool.add(report(seq, "text " * seq), {"mark": seq})
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends) - 1
        torn = Spool.read(path)
        assert (torn.seq, told(torn)) == (whole, list(range(1, whole + 1)))
        assert torn.recall("mark", int) == (whole or None)
        torn.add(report(whole + 1), {})
        assert told(Spool.read(path)) == list(range(1, whole + 2))


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\xff" * 100, os.urandom(100), b"\0\0\0\5\0\0\0\0hello"])
def test_garbage_behind_the_last_record_is_no_record(path: Path, garbage: bytes) -> None:
    Spool(path).add(report(1), {})
    path.write_bytes(path.read_bytes() + garbage)
    assert told(Spool.read(path)) == [1]


def test_a_changed_byte_ends_what_counts(path: Path) -> None:
    spool = Spool(path)
    for seq in range(1, 4):
        spool.add(report(seq), {})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert told(Spool.read(path)) == [1]


@pytest.mark.parametrize("more", [0, 1, 7, 8, 50, 150, 300])
def test_on_a_full_disk_nothing_is_lost_from_memory_and_all_is_written_when_there_is_room(
    path: Path, more: int
) -> None:
    spool = Spool(path)
    spool.add(report(1), {})
    with full_disk(path, more):
        raw = spool.add(report(2, "x" * 200), {"mark": 2})
        spool.add(report(3), {})
        assert told(Spool.read(path)) == [1]
    assert msgspec.json.decode(raw)["events"][0]["msg"] == "x" * 200
    spool.judged(1)
    again = Spool.read(path)
    assert (told(again), again.recall("mark", int)) == ([2, 3], 2)


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "attempts").write_text("no folder")
    spool = Spool(tmp_path / "attempts" / "run-1" / FILE)
    assert bytes(spool.add({"seq": 1}, {})) == b'{"seq":1}'


async def test_what_is_synced_is_there_and_a_disk_that_cannot_stops_nobody(path: Path) -> None:
    spool = Spool(path)
    await spool.sync()
    spool.keep(a=1)
    await spool.sync()
    assert Spool.read(path).recall("a", int) == 1


def test_what_is_forgotten_is_not_kept_again(path: Path) -> None:
    spool = Spool(path)
    spool.keep(a=1)
    spool.forget()
    path.unlink()
    spool.judged(1)
    assert not path.exists()
