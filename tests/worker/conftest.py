"""Engines of both kinds, and jobs for them.

One bundle serves nearly all tests: its program runs the Python text in the variable PROGRAM, so that Docker builds a
single image. Docker tests are skipped where no engine answers or the base image is missing; with GYOZA_REQUIRE_DOCKER=1
that is a failure.
"""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiodocker.exceptions import DockerError

from gyoza.models.bundle import Bundle
from gyoza.worker.engines import Engine, Job, Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect, owned, remove
from gyoza.worker.engines.environments import PYTHON
from gyoza.worker.engines.process import Process

from .fixtures import (
    cluster,
    contained_cluster,
    line,
    pipeline,
    pipeline_database,
    quiet_loop,
    shared_cluster,
    user,
)
from .registry import Registry, a_registry

__all__ = [
    "cluster",
    "contained_cluster",
    "line",
    "pipeline",
    "pipeline_database",
    "quiet_loop",
    "shared_cluster",
    "user",
]

BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")
ENTRY = ("python", "main.py")
MAIN = b"import os; exec(compile(os.environ['PROGRAM'], 'program', 'exec'))"
Files = Mapping[str, bytes]


def _pack(path: Path, files: Files, links: Mapping[str, str] | None = None) -> None:
    """A gzipped tar of these files and symbolic links; every file is executable."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)


def _make_bundle(
    path: Path, files: Files, *, entry: Iterable[str] = ENTRY, python: str | None = PYTHON, **told: Any
) -> Bundle:
    """Pack a well-formed bundle of `files` and answer what a definition keeps of it."""
    manifest = {"format": 1, "entry": list(entry), "python": python, "base_image": told.get("base_image")}
    _pack(path, {"bundle.json": json.dumps(manifest).encode(), "lib/gyoza/__init__.py": b"", **files})
    data = path.read_bytes()
    digest = f"sha256:{sha256(data).hexdigest()}"
    return Bundle("gyoza://files/test", digest, len(data), tuple(entry), python, told.get("base_image"))


@pytest.fixture(scope="session")
def pack() -> Callable[..., None]:
    return _pack


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    return _make_bundle


@pytest.fixture(scope="session")
def owner() -> Owner:
    return Owner(cluster=f"test-{uuid4().hex[:12]}", host="here", worker="one")


@pytest.fixture(scope="session")
def program_archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.gz"
    return _make_bundle(path, {"app/main.py": MAIN, "app/data.txt": b"as shipped"}), path


MakeJob = Callable[..., Job]


@pytest.fixture
def job(tmp_path: Path, program_archive: tuple[Bundle, Path]) -> MakeJob:
    """Make a job that runs a Python text, or with `bundle=` and `archive=` something else."""
    bundle, archive = program_archive

    def make(program: str = "", **changes: Any) -> Job:
        run_id = str(uuid4())
        parent = tmp_path / run_id
        parent.mkdir(mode=0o700)
        io_dir = parent / "io"
        io_dir.mkdir(mode=0o700)
        (io_dir / "inputs.json").write_text('{"x": 1}')
        (io_dir / "inputs.json").chmod(0o600)
        made = Job(run_id, 1, io_dir, 1000, 128, bundle=bundle, archive=archive, env={"PROGRAM": program})
        return replace(made, **changes)

    return make


async def _docker_answers(owner: Owner) -> str | None:
    engine = Docker(owner, base_image=BASE_IMAGE)
    try:
        return await engine.can_run() or await engine.can_build()
    finally:
        await engine.close()


@pytest.fixture(scope="session")
async def docker_ready(owner: Owner) -> AsyncIterator[None]:
    """Skip, or fail where Docker is required; afterwards nothing of this session may be left, and its images go."""
    missing = await _docker_answers(owner)
    if missing is not None and os.environ.get("GYOZA_REQUIRE_DOCKER") == "1":
        pytest.fail(f"Docker is required (GYOZA_REQUIRE_DOCKER=1). {missing}")
    if missing is not None:
        pytest.skip(missing)
    yield
    client = await connect()
    try:
        label = {"gyoza.cluster": owner.cluster}
        left = await owned(client, label)
        for name in left:
            await remove(client, name)
        for mark in (f"gyoza.cluster={owner.cluster}", f"gyoza.builder={owner.mark}"):
            for image in await client.images.list(filters={"label": [mark]}):
                with suppress(DockerError):  # gone with another
                    await client.images.delete(image["Id"], force=True)
        assert left == []
    finally:
        await disconnect(client)


@pytest.fixture
async def docker(docker_ready: None, owner: Owner) -> AsyncIterator[Docker]:
    engine = Docker(owner, base_image=BASE_IMAGE)
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
async def registry(docker_ready: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with a_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
async def private_registry(docker_ready: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    """It wants `USER` and `PASSWORD`."""
    async with a_registry(tmp_path_factory.mktemp("private"), private=True) as registry:
        yield registry


@pytest.fixture(scope="session")
def process_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("process")


@pytest.fixture
async def process(owner: Owner, process_folder: Path) -> AsyncIterator[Process]:
    engine = Process(owner, process_folder)
    yield engine
    assert list(process_folder.glob("runs/*/*")) == []
    await engine.close()


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


@pytest.fixture
def engine_of() -> Callable[[Engine, Owner, Path], Engine]:
    """Another engine of the same kind, for another owner."""

    def make(like: Engine, owner: Owner, folder: Path) -> Engine:
        return Docker(owner, base_image=BASE_IMAGE) if like.name == "docker" else Process(owner, folder)

    return make


@pytest.fixture(scope="session")
def wheel() -> tuple[str, bytes, str]:
    """A tiny wheel by hand: its file name, its bytes, and the line of requirements.lock that pins it."""
    name, info = "tinypkg-1.0-py3-none-any.whl", "tinypkg-1.0.dist-info"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("tinypkg.py", "WORD = 'dumpling'\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", f"tinypkg.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return name, data.getvalue(), f"tinypkg==1.0 --hash=sha256:{sha256(data.getvalue()).hexdigest()}"
