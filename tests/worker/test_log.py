"""The file that holds an op's output: what it keeps, what it leaves out, and how a later process goes on with it."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.worker.engines.frames import Frames
from gyoza.worker.engines.log import END, Log
from gyoza.worker.engines.marks import Entry, Mark, Search
from gyoza.worker.redaction import Redactor

LIMIT = 64 * 2**10


class Holding:
    """A filter that makes X of "secret", and holds back what may become one."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def held(self) -> int:
        return len(self._rest)

    def feed(self, data: bytes) -> bytes:
        data = (self._rest + data).replace(b"secret", b"X")
        begun = max((n for n in range(1, 6) if data.endswith(b"secret"[:n])), default=0)
        self._rest = data[len(data) - begun :]
        return data[: len(data) - begun]

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest


def test_the_file_is_for_the_worker_alone(tmp_path: Path) -> None:
    with closing(Log(tmp_path / "log")):
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"log": 0o600, "log.state": 0o600}


def test_what_fits_is_kept_as_it_is(tmp_path: Path) -> None:
    with closing(Log(tmp_path / "log", limit=LIMIT)) as log:
        log.write([(1, b"one "), (2, b"two "), (1, b"three")])
        log.end()
        assert log.read(0, 100) == b"one two three"
        assert log.read(4, 3) == b"two"
        assert log.read(13, 100) == log.read(99, 100) == b""


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT])
def test_it_never_has_more_than_its_limit_and_says_what_is_missing(tmp_path: Path, size: int) -> None:
    data = b"%07d\n" * (size // 8) % tuple(range(size // 8))
    with closing(Log(tmp_path / "log", limit=LIMIT)) as log:
        for at in range(0, len(data), 1000):
            log.write([(1, data[at : at + 1000])])
        log.end()
        said = log.read(0, 10 * LIMIT)
    assert len(said) <= LIMIT
    first, *notes = said.split(b"\n[gyoza: ")
    last = notes[-1].partition(b"]\n")[2] if notes else b""
    assert data.startswith(first) and data.endswith(last)
    left_out = int(notes[-1].split()[0]) if notes else 0
    assert len(first) + left_out + len(last) == len(data)


def test_the_tail_is_the_end_of_all_that_was_written(tmp_path: Path) -> None:
    with closing(Log(tmp_path / "log", limit=LIMIT)) as log:
        for _ in range(100):
            log.write([(1, b"x" * 10_000)])
        log.write([(1, "the last words, \u20ac".encode())])
        assert log.tail(17) == "the last words, \u20ac"
        log.end()
        assert log.tail(17) == "the last words, \u20ac"
        assert log.tail(0) == ""


def test_it_stops_growing_when_it_is_told_to(tmp_path: Path) -> None:
    with closing(Log(tmp_path / "log")) as log:
        log.write([(1, b"kept")])
        log.stop_growing()
        for _ in range(100):
            log.write([(1, b"x" * 10_000)])
        log.end()
        assert log.size < 20_000
        assert f"{1_000_000 - END} bytes were left out" in log.tail(20_000)


def test_a_full_disk_costs_bytes_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def pwrite(file: int, data: bytes, at: int) -> int:
        if at + len(data) > 1500:
            raise OSError(28, "No space left on device")
        return real(file, data, at)

    with closing(Log(tmp_path / "log")) as log:
        monkeypatch.setattr(os, "pwrite", pwrite)
        log.write([(1, b"a" * 1000)])
        log.write([(1, b"b" * 1000)])
        monkeypatch.setattr(os, "pwrite", real)
        log.end()
        assert log.read(0, 10_000) == b"a" * 1000 + b"b" * 1000


def test_a_later_process_goes_on_where_an_earlier_one_was_killed(tmp_path: Path) -> None:
    first = Log(tmp_path / "log", new_filter=Holding)
    first.write([(1, b"it is secret and se"), (2, b"other")])
    first.keep("not while something is held back")
    os.pwrite(first._file, b"bytes of which the state does not know yet", first.size)  # pyright: ignore
    with closing(Log(tmp_path / "log", new_filter=Holding, goes_on=True)) as later:
        assert later.read(0, 100) == b"it is X and other"
        assert (later.fed(1), later.fed(2), later.mark) == (len(b"it is secret and "), 5, None)
        later.write([(1, b"secret")])
        later.keep({"any": "thing"})
        assert later.read(0, 100) == b"it is X and otherX"
    first.close()
    with closing(Log(tmp_path / "log", goes_on=True)) as last:
        assert (last.size, last.mark) == (18, {"any": "thing"})
    with closing(Log(tmp_path / "log")) as anew:
        assert (anew.size, anew.fed(1), anew.mark) == (0, 0, None)


def test_streams_are_filtered_each_for_itself(tmp_path: Path) -> None:
    with closing(Log(tmp_path / "log", new_filter=Holding)) as log:
        log.write([(1, b"sec"), (2, b"[error]"), (1, b"ret")])
        assert log.read(0, 100) == b"[error]X"
        log.write([(1, b"sec")])
        assert log.read(0, 100) == b"[error]X"
        log.end()
        assert log.read(0, 100) == b"[error]Xsec"


def test_a_secret_never_comes_into_the_file_however_it_arrives(tmp_path: Path) -> None:
    secret = b"correct horse battery"
    with closing(Log(tmp_path / "log", new_filter=lambda: Redactor([secret]))) as log:
        for byte in b"it is " + secret + b", they say":
            log.write([(1, bytes([byte])), (2, b".")])
            assert b"correct horse" not in log.read(0, 1000)
        log.end()
        said = log.read(0, 1000).replace(b".", b"")
    assert said == b"it is ***, they say"


PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20)), max_size=8)


@given(PIECES, st.lists(st.integers(0, 300), max_size=8))
def test_frames_are_whole_however_the_bytes_arrive(pieces: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(bytes([n, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for n, data in pieces)
    frames, at = Frames(), 0
    found: list[tuple[int, bytes]] = []
    for cut in sorted({*(min(cut, len(stream)) for cut in cuts), len(stream)}):
        found += frames.cut(stream[at:cut])
        at = cut
    assert found == pieces


@pytest.mark.parametrize("time", ["2026-02-03T04:05:06.000000007Z", "2026-02-03T06:05:06.000000007+02:00"])
def test_an_entry_is_read_to_the_nanosecond(time: str) -> None:
    assert Entry.of(2, time.encode() + b" a b\n") == Entry(2, 1770091506_000000007, b"a b\n")


S = 10**9
WRITTEN = st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 20), st.booleans(), st.binary(max_size=3)))


def record_of(written: list[tuple[int, int, bool, bytes]]) -> list[Entry]:
    """As the engine stamps: parts of one line with one time, and two streams a little out of their order."""
    clock, newest, record = 0, dict[int, int](), list[Entry]()
    for stream, pause_s, is_part, data in written:
        clock += pause_s * S
        if not (is_part and stream in newest):
            newest[stream] = max(clock - S // 10 * (stream == 2), newest.get(stream, 0))
        record.append(Entry(stream, newest[stream], data))
    return record


@given(WRITTEN, st.integers(0, 20))
def test_a_mark_finds_its_place_again_however_many_entries_have_one_time(
    written: list[tuple[int, int, bool, bytes]], at: int
) -> None:
    record, mark = record_of(written), Mark()
    for entry in record[:at]:
        mark.pass_by(entry)
    mark = Mark.from_dict(mark.to_dict())
    since = mark.since
    asked = [(n, entry) for n, entry in enumerate(record) if since is None or entry.at >= since]
    search = Search(mark)
    assert [n for n, entry in asked if not search.skips(entry)] == list(range(at, len(record)))
    assert search.is_over
    for stream in (1, 2):
        assert mark.bytes.get(stream, 0) == sum(len(each.data) for each in record[:at] if each.stream == stream)


def test_a_mark_whose_entry_is_gone_is_not_found() -> None:
    mark = Mark()
    mark.pass_by(Entry(1, 5 * S, b"x"))
    search = Search(mark)
    assert search.skips(Entry(1, 6 * S, b"y"))
    assert not search.is_over
