"""`gyoza demo`: what a newcomer sees first, and that nothing is left of it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiodocker import Docker

from .conftest import BASE_IMAGE
from .stage import Command, Stage, living_in

PICTURES = ("small.jpg", "medium.jpg", "large.jpg", "contact_sheet.png")
FIRST_AND_LAST = {".jpg": (b"\xff\xd8\xff", b"\xff\xd9"), ".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")}


@pytest.fixture
def tmp(empty_stage: Stage) -> Iterator[Path]:
    """Where all temporary files of the demo go."""
    tmp = empty_stage.folder / "tmp"
    tmp.mkdir()
    empty_stage.environ["TMPDIR"] = str(tmp)
    return tmp


def demo(stage: Stage, runtime: str) -> Command:
    out = str(stage.folder / "out")
    return stage.run("demo", "--runtime", runtime, "--out", out, GYOZA_BASE_IMAGE=BASE_IMAGE)


def assert_shown(stage: Stage, command: Command, engine: str) -> None:
    assert command.ends(90) == 0, command.said
    for words in ("$ gyoza op deploy", "$ gyoza run thumbnails", f"({engine})", "PROGRESS", '"width": 1600'):
        assert words in command.said
    for name in PICTURES:
        data = (stage.folder / "out" / name).read_bytes()
        first, last = FIRST_AND_LAST[Path(name).suffix]
        assert data.startswith(first) and data.endswith(last)


def test_it_runs_in_plain_processes_and_leaves_only_the_pictures(empty_stage: Stage, tmp: Path):
    assert_shown(empty_stage, demo(empty_stage, "process"), "process")
    assert living_in(empty_stage.folder) == []
    assert list(tmp.iterdir()) == []


@pytest.mark.docker
async def test_it_runs_in_a_container_and_leaves_only_the_pictures(empty_stage: Stage, tmp: Path, docker: Docker):
    assert_shown(empty_stage, demo(empty_stage, "docker"), "docker")
    assert living_in(empty_stage.folder) == []
    assert list(tmp.iterdir()) == []
    for container in await docker.containers.list(all=True, filters={"label": ["gyoza.worker=local"]}):
        mounts = (await container.show())["Mounts"]
        assert not any(mount["Source"].startswith(str(tmp)) for mount in mounts)


def test_ctrl_c_in_the_midst_of_it_leaves_nothing(empty_stage: Stage, tmp: Path):
    command = demo(empty_stage, "process")
    command.says("$ gyoza run thumbnails")
    assert command.stop(signal.SIGINT, within_s=6) == 130
    assert "Traceback" not in command.said
    assert living_in(empty_stage.folder) == []
    assert list(tmp.iterdir()) == []
