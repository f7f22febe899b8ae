"""Archives of every kind of malice and accident."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import pytest

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines.bundles import Bounds, has_requirements, unpack

MANIFEST = {"bundle.json": json.dumps({"format": 1, "entry": ["./run"], "python": None, "base_image": None}).encode()}
BUNDLE = Bundle("gyoza://files/x", "sha256:" + "0" * 64, 1, ("./run",))
Pack = Callable[..., None]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., str]:
    """Unpack `archive` of the test's folder, which must be refused; what was said."""

    def refuse(bounds: Bounds = Bounds(), bundle: Bundle = BUNDLE) -> str:
        into = Path(mkdtemp(dir=tmp_path)) / "folder"
        with pytest.raises(AttemptError) as caught:
            unpack(tmp_path / "archive", into, bundle, bounds)
        assert caught.value.reason == "bundle_broken", caught.value.detail
        return caught.value.detail

    return refuse


def pack_entry(path: Path, name: str, kind: bytes, link: str = "") -> None:
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        tar.addfile(entry)


def test_files_links_and_modes_arrive(tmp_path: Path, pack: Pack) -> None:
    files = {**MANIFEST, "app/run": b"#!/bin/sh\n", "app/deep/er/file": b"x"}
    pack(tmp_path / "archive", files, {"app/link": "deep/er/file", "app/deep/up": "../run"})
    manifest = unpack(tmp_path / "archive", tmp_path / "into", BUNDLE)
    assert manifest.entry == ("./run",)
    assert (tmp_path / "into/app/link").read_bytes() == b"x"
    assert (tmp_path / "into/app/deep/up").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "into/app/run").stat().st_mode & 0o7777 == 0o755
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == ["app", "bundle.json", "lib", "wheels"]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "app/../../evil", "app/..", "..", "a\\..\\..\\evil"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, pack: Pack, broken: Callable[..., str], name: str) -> None:
    pack(tmp_path / "archive", {**MANIFEST, name: b"x"})
    assert "not a path inside" in broken()
    assert list(tmp_path.rglob("evil")) == [] and not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    "links",
    [
        {"app/link": "/etc"},
        {"app/link": "../../.."},
        {"app/a/b/c": "../../..", "app/d": "a/b/c/.."},
        {"app/a": "a"},
        {"app": "/etc"},
        {"app/dir": "../..", "app/dir/below": "x"},
    ],
)
def test_a_link_that_leads_out_is_refused(
    tmp_path: Path, pack: Pack, broken: Callable[..., str], links: dict[str, str]
) -> None:
    pack(tmp_path / "archive", MANIFEST, links)
    assert "link" in broken()


def test_nothing_is_written_through_a_link(tmp_path: Path, broken: Callable[..., str]) -> None:
    with tarfile.open(tmp_path / "archive", "w:gz") as tar:
        link = tarfile.TarInfo("app/dir")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        file = tarfile.TarInfo("app/dir/evil")
        file.size = 1
        tar.addfile(file, io.BytesIO(b"x"))
    assert "twice" in broken()
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.LNKTYPE])
def test_devices_pipes_and_hard_links_are_refused(tmp_path: Path, broken: Callable[..., str], kind: bytes) -> None:
    pack_entry(tmp_path / "archive", "app/odd", kind, "/etc/passwd")
    assert "app/odd" in broken()


def test_sizes_and_counts_are_bounded(tmp_path: Path, pack: Pack, broken: Callable[..., str]) -> None:
    pack(tmp_path / "archive", {**MANIFEST, "app/a": b"x" * 100, "app/b": b""})
    assert "more than" in broken(Bounds(size=150))
    assert "more than" in broken(Bounds(count=2))


def test_an_archive_cut_short_is_refused(tmp_path: Path, pack: Pack, broken: Callable[..., str]) -> None:
    pack(tmp_path / "archive", {**MANIFEST, "app/a": bytes(range(256)) * 100})
    data = (tmp_path / "archive").read_bytes()
    for size in (0, 5, len(data) // 2):
        (tmp_path / "archive").write_bytes(data[:size])
        assert "cannot be read" in broken()


def test_two_entries_of_one_name_are_refused(tmp_path: Path, broken: Callable[..., str]) -> None:
    with tarfile.open(tmp_path / "archive", "w:gz") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("app/file"))
    assert "File exists" in broken()


def test_a_file_where_a_folder_must_be_is_refused(tmp_path: Path, pack: Pack, broken: Callable[..., str]) -> None:
    pack(tmp_path / "archive", {**MANIFEST, "app": b"x", "app/file": b"x"})
    broken()


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"format": 2, "entry": ["./run"]}',
        b'{"format": 1, "entry": "./run"}',
        b'{"format": 1, "entry": []}',
        b'{"format": 1, "entry": ["./run", 1]}',
        b'{"format": 1, "entry": ["./run"], "python": 3.11}',
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, pack: Pack, broken: Callable[..., str], manifest: bytes) -> None:
    pack(tmp_path / "archive", {"bundle.json": manifest})
    assert "bundle.json" in broken()


def test_a_missing_manifest_is_refused(tmp_path: Path, pack: Pack, broken: Callable[..., str]) -> None:
    pack(tmp_path / "archive", {"app/x": b""})
    assert "no bundle.json" in broken()


def test_a_manifest_that_contradicts_the_definition_is_refused(
    tmp_path: Path, pack: Pack, broken: Callable[..., str]
) -> None:
    pack(tmp_path / "archive", MANIFEST)
    assert "another entry" in broken(bundle=Bundle("gyoza://files/x", "sha256:0", 1, ("./other",)))


@pytest.mark.parametrize(
    "text, needed", [("", False), ("# nothing\n\n", False), ("# one\nx==1 --hash=sha256:0\n", True)]
)
def test_a_lock_of_comments_needs_no_packages(tmp_path: Path, text: str, needed: bool) -> None:
    (tmp_path / "requirements.lock").write_text(text)
    assert has_requirements(tmp_path) is needed
