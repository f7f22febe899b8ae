"""What of the bytes that are sent goes into a log."""

from hypothesis import given
from hypothesis import strategies as st

from gyoza.policy.logs import CHUNK, Addition, addition, divided

SIZES = st.integers(0, 50)


def test_what_follows_is_added():
    assert addition(3, 3, b"abc", 100) == Addition(b"abc")


def test_what_is_there_already_is_not_added_again():
    assert addition(6, 3, b"abc", 100) == Addition(b"")
    assert addition(9, 3, b"abc", 100) == Addition(b"")


def test_of_what_overlaps_the_end_only_the_rest_is_added():
    assert addition(5, 3, b"abc", 100) == Addition(b"c")


def test_nothing_is_nothing_wherever_it_is_sent():
    assert addition(3, 7, b"", 100) == Addition(b"")


def test_a_log_may_be_full_to_the_byte():
    assert addition(7, 7, b"abc", 10) == Addition(b"abc")


def test_a_log_that_would_be_too_long_is_cut_and_says_where():
    added = addition(7, 7, b"abcd", 10)
    assert added == Addition(b"abc\n[gyoza: the log was cut here: it reached 10 bytes]\n", cut=True)


def test_a_log_that_a_higher_limit_let_grow_is_cut_where_it_is():
    added = addition(12, 12, b"abcd", 10)
    assert added == Addition(b"\n[gyoza: the log was cut here: it reached 12 bytes]\n", cut=True)


@given(SIZES, SIZES, SIZES, SIZES)
def test_whatever_part_is_sent_the_log_holds_the_start_of_what_was_written(
    size: int, offset: int, length: int, room: int
):
    written, offset, limit = bytes(range(150)), min(offset, size), size + room
    end = max(offset + length, size)
    added = addition(size, offset, written[offset : offset + length], limit)
    assert (written[:size] + added.data)[:limit] == written[: min(end, limit)]
    assert added.cut == (end > limit)


@given(st.integers(0, 3 * CHUNK + 1))
def test_chunks_are_the_whole_and_none_is_too_large_or_empty(size: int):
    sizes = [len(part) for part in divided(bytes(size))]
    assert sum(sizes) == size
    assert all(0 < part <= CHUNK for part in sizes)
