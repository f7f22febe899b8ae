import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gyoza.client import wheels
from gyoza.client.bundle import PackedBundle, pack
from gyoza.client.project import Project
from gyoza.models.bundle import BundleManifest
from gyoza.models.errors import ProjectError


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "run.sh").write_text("echo hello\n")
    (folder / "run.sh").chmod(0o700)
    (folder / "sub" / "data.txt").write_text("data")
    return Project(folder, "tiny", command=("sh", "run.sh"))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and from nowhere else; and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def write_wheel(folder: Path, name: str, version: str, needs: str = "") -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = '{version}'\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def contents(packed: PackedBundle) -> dict[str, bytes]:
    with tarfile.open(packed.path) as archive:
        files = [(each.name, archive.extractfile(each)) for each in archive if each.isreg()]
        return {name: file.read() for name, file in files if file}


def python_project(project: Project, *requirements: str) -> Project:
    (project.folder / "tiny.py").write_text("def main(): ...\n")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Project(project.folder, "tiny", entry="tiny:main", python=python, requirements=requirements)


def test_a_bundle_holds_the_folder_and_says_how_to_start_it(project: Project, tmp_path: Path) -> None:
    packed = pack(project, tmp_path / "out")
    found = contents(packed)
    assert set(found) == {"bundle.json", "app/run.sh", "app/sub/data.txt"}
    assert BundleManifest.from_dict(json.loads(found["bundle.json"])) == packed.manifest
    assert packed.manifest == BundleManifest(("sh", "run.sh"), base_image="debian:stable-slim")
    assert packed.digest == f"sha256:{hashlib.sha256(packed.path.read_bytes()).hexdigest()}"
    assert packed.size == packed.path.stat().st_size
    assert [path.name for path in (tmp_path / "out").iterdir()] == [packed.path.name]


def test_the_same_content_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    first = pack(project, tmp_path / "one")
    for path in project.folder.rglob("*"):
        os.utime(path, (1, 1))
    (project.folder / "run.sh").chmod(0o755)
    (project.folder / "sub" / "data.txt").chmod(0o600)
    other = tmp_path / "elsewhere"
    project.folder.rename(other)
    second = pack(Project(other, "tiny", command=("sh", "run.sh")), tmp_path / "two")
    assert first.path.read_bytes() == second.path.read_bytes()
    (other / "sub" / "data.txt").write_text("date")
    assert pack(Project(other, "tiny", command=("sh", "run.sh")), tmp_path / "two").digest != first.digest


def test_nothing_of_the_packing_machine_is_in_it(project: Project, tmp_path: Path) -> None:
    packed = pack(project, tmp_path / "out")
    with tarfile.open(packed.path) as archive:
        members = archive.getmembers()
    assert [each.name for each in members] == sorted(each.name for each in members)
    assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in members} == {(0, 0, "", "", 0)}
    assert {each.name: oct(each.mode) for each in members} == {
        "app/run.sh": "0o755",
        "app/sub/data.txt": "0o644",
        "bundle.json": "0o644",
    }
    header = packed.path.read_bytes()[:10]
    assert header[3] == 0 and header[4:8] == b"\0\0\0\0", "a gzip header without name and time"
    assert gzip.decompress(packed.path.read_bytes())


def test_what_is_no_part_of_the_op_stays_out(project: Project, tmp_path: Path) -> None:
    for name in (
        ".git/config",
        "__pycache__/a.pyc",
        ".venv/bin/python",
        "b.pyc",
        ".env",
        "sub/__pycache__/c",
        "gyoza.yml",
    ):
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_text("x")
    for name in (
        "notes.md",
        "sub/notes.md",
        "data/big.bin",
        "sub/data/kept",
        "top.txt",
        "sub/top.txt",
        "build",
        "sub/gyoza.yml",
    ):
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_text("x")
    (project.folder / ".gyozaignore").write_text("# comment\n\n*.md\n/data\n/top.txt\nsub/d*.txt\nbuild/\n")
    assert set(contents(pack(project, tmp_path / "out"))) == {
        "bundle.json",
        *("app/run.sh", "app/sub/data/kept", "app/sub/top.txt", "app/build", "app/sub/gyoza.yml"),
    }


def test_an_exception_to_the_ignored_is_refused(project: Project, tmp_path: Path) -> None:
    (project.folder / ".gyozaignore").write_text("*.md\n!README.md\n")
    with pytest.raises(ProjectError, match=r"'!README\.md': exceptions with '!' are not supported"):
        pack(project, tmp_path / "out")


def test_bundles_packed_into_the_folder_itself_are_not_packed_again(project: Project) -> None:
    out = project.folder / "dist"
    assert pack(project, out).digest == pack(project, out).digest


def test_links_inside_stay_links_and_links_to_the_outside_are_refused(project: Project, tmp_path: Path) -> None:
    (project.folder / "sub" / "run").symlink_to("../run.sh")
    packed = pack(project, tmp_path / "out")
    with tarfile.open(packed.path) as archive:
        assert archive.getmember("app/sub/run").linkname == "../run.sh"
    for target in ("../../outside", str(project.folder / "run.sh")):
        (project.folder / "bad").symlink_to(target)
        with pytest.raises(ProjectError, match="is a link that leads out of"):
            pack(project, tmp_path / "out")
        (project.folder / "bad").unlink()
    os.mkfifo(project.folder / "fifo")
    with pytest.raises(ProjectError, match="fifo is neither a file nor a folder"):
        pack(project, tmp_path / "out")


def test_a_python_op_brings_gyoza_op_along(project: Project, tmp_path: Path) -> None:
    packed = pack(python_project(project), tmp_path / "out")
    found = contents(packed)
    assert found["lib/gyoza/__init__.py"] == b""
    assert {"lib/gyoza/op/__init__.py", "lib/gyoza/op/__main__.py", "lib/gyoza/op/runner.py"} < set(found)
    assert packed.manifest.entry == ("python", "-m", "gyoza.op", "tiny:main")
    assert "requirements.lock" not in found and not any(name.startswith("wheels/") for name in found)


def test_requirements_are_locked_with_their_own_and_their_hashes(project: Project, tmp_path: Path, index: Path) -> None:
    first = write_wheel(index, "First_Thing", "1.0", "Requires-Dist: second\n")
    second = write_wheel(index, "second", "2.1")
    found = contents(pack(python_project(project, "first.thing"), tmp_path / "out"))
    assert found["requirements.lock"].decode() == (
        f"first-thing==1.0 --hash=sha256:{hashlib.sha256(first.read_bytes()).hexdigest()}\n"
        f"second==2.1 --hash=sha256:{hashlib.sha256(second.read_bytes()).hexdigest()}\n"
    )
    assert found[f"wheels/{first.name}"] == first.read_bytes() and found[f"wheels/{second.name}"] == second.read_bytes()


def test_wheels_once_fetched_are_kept(project: Project, tmp_path: Path, index: Path) -> None:
    wheel = write_wheel(index, "only", "1.0")
    first = pack(python_project(project, "only"), tmp_path / "out")
    wheel.unlink()
    assert pack(python_project(project, "only"), tmp_path / "out") == first


def test_what_has_no_wheel_is_built_here(project: Project, tmp_path: Path, index: Path) -> None:
    write_source(index, "homemade", "0.3")
    found = contents(pack(python_project(project, "homemade"), tmp_path / "out"))
    assert "wheels/homemade-0.3-py3-none-any.whl" in found


def test_requirements_that_nobody_has_are_named_with_pip_s_last_words(
    project: Project, tmp_path: Path, index: Path
) -> None:
    with pytest.raises(ProjectError) as caught:
        pack(python_project(project, "no-such-thing==9"), tmp_path / "out")
    assert caught.value.detail.startswith("pip cannot get the requirements for Python 3.")
    assert "(no-such-thing==9)" in caught.value.detail
    assert "No matching distribution found for no-such-thing==9" in caught.value.detail.splitlines()[-1]
    assert not list((tmp_path / "cache").rglob("*.whl")) and not list((tmp_path / "out").iterdir())


def test_an_environment_without_pip_is_told_so(
    project: Project, tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProjectError, match=r"Packing the requirements needs pip, which .* does not have: install it"):
        pack(python_project(project, "anything"), tmp_path / "out")


def write_source(folder: Path, name: str, version: str) -> None:
    """A source distribution that builds itself, without any build tool."""
    backend = f"""
import zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name, info = "{name}-{version}-py3-none-any.whl", "{name}-{version}.dist-info"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        wheel.writestr("{name}.py", "")
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name
"""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
