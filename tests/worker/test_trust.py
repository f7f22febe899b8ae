"""What an op has written is opened as if an enemy had written it."""

import os
import socket
from pathlib import Path

import pytest

from gyoza.worker.trust import Untrusted, open_regular, read_regular


def refused(folder: Path, name: str) -> str:
    with pytest.raises(Untrusted) as caught:
        read_regular(folder, name, 100)
    return str(caught.value)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"here")
    assert read_regular(tmp_path, "a/b/c", 100) == b"here"
    assert read_regular(tmp_path, "a//b/./c", 4) == b"here"


@pytest.mark.parametrize("name", ["none", "none/below", "a/none"])
def test_nothing_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    assert read_regular(tmp_path, name, 100) is None


def test_a_folder_that_the_op_removed_holds_nothing(tmp_path: Path) -> None:
    assert read_regular(tmp_path / "gone", "outputs.json", 100) is None


def test_a_folder_that_the_op_replaced_by_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("s")
    (tmp_path / "io").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refused(tmp_path / "io", "secret")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a\0b", "//x"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    assert "does not name a file inside" in refused(tmp_path, name)


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path, "x" * 300)


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    io = tmp_path / "io"
    io.mkdir()
    (io / "link").symlink_to(secret)
    (io / "behind").symlink_to(tmp_path)
    (io / "loop").symlink_to("loop")
    assert "symbolic link" in refused(io, "link")
    assert "lies behind one" in refused(io, "behind/secret")
    assert "symbolic link" in refused(io, "loop")


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "lies behind one" in refused(tmp_path, "file/x")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    assert "is not a regular file" in refused(tmp_path, "fifo")
    assert "is not a regular file" in refused(tmp_path, "folder")
    assert "cannot be read" in refused(tmp_path, "socket")


def test_a_file_may_be_as_large_as_its_limit_and_no_larger(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"x" * 100)
    (tmp_path / "fuller").write_bytes(b"x" * 101)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 2**40)
    assert read_regular(tmp_path, "full", 100) == b"x" * 100
    assert "larger than 100 bytes" in refused(tmp_path, "fuller")
    assert "larger than 100 bytes" in refused(tmp_path, "sparse")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"")
    os.mkfifo(tmp_path / "a" / "fifo")
    before = open_files()
    descriptor = open_regular(tmp_path, "a/b")
    assert descriptor is not None
    os.close(descriptor)
    assert read_regular(tmp_path, "a/b", 1) == b""
    assert read_regular(tmp_path, "a/none/c", 1) is None
    for name in ("a/fifo", "a", "../a"):
        refused(tmp_path, name)
    assert open_files() == before
