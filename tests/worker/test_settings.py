"""What a worker is told, who it is, and what it has to give."""

from pathlib import Path

import pytest

from gyoza.models.errors import StartUpError
from gyoza.models.resources import Resources
from gyoza.worker.engines.disk import Watermark
from gyoza.worker.gpus import Gpus
from gyoza.worker.identity import Identity
from gyoza.worker.probe import Machine
from gyoza.worker.settings import WorkerSettings, make_folder


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path))
    environ = {"GYOZA_WORKER_NAME": "from-env", "GYOZA_WORKER_TAGS": " a, b,,", "GYOZA_RUNTIME": "process"}
    told = WorkerSettings.from_environment(environ, name="given")
    assert (told.name, told.folder, told.tags, told.runtime) == (
        "given",
        tmp_path / "workers" / "given",
        ("a", "b"),
        "process",
    )
    assert WorkerSettings.from_environment(environ, tags="c", runtime="docker").tags == ("c",)


def test_a_worker_without_a_name_is_called_as_its_host() -> None:
    assert WorkerSettings.from_environment({}).name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "../x"}, "'../x' is no worker name: use letters, digits, dots, dashes (--name)"),
        ({"name": "-x"}, "is no worker name"),
        ({"name": "x" * 201}, "is no worker name"),
        ({"runtime": "podman"}, "'podman' is no runtime: choose one of auto, docker, process (--runtime)"),
        ({"cpu": 0.1234}, "0.1234 CPUs cannot be given: write at most three decimals (--cpu)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(options: dict[str, object], said: str) -> None:
    with pytest.raises(StartUpError) as caught:
        WorkerSettings.from_environment({}, **options)  # type: ignore[arg-type]
    assert said in caught.value.detail and "\n" not in caught.value.detail


def test_root_and_secrets_are_for_the_owner_to_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path))
    told = WorkerSettings.from_environment({})
    assert (told.allow_root, told.secrets) == (False, tmp_path / "secrets")
    told = WorkerSettings.from_environment({"GYOZA_ALLOW_ROOT": "Yes", "GYOZA_SECRETS_DIR": "/run/keys"})
    assert (told.allow_root, told.secrets) == (True, Path("/run/keys"))
    with pytest.raises(StartUpError, match="set GYOZA_ALLOW_ROOT to 1 or 0"):
        WorkerSettings.from_environment({"GYOZA_ALLOW_ROOT": "maybe"})


async def test_what_is_not_said_is_measured(tmp_path: Path) -> None:
    async def probe(**told: float) -> Resources:
        return await Machine(WorkerSettings("x", tmp_path, **told), Gpus()).resources()

    found = await probe()
    assert found.cpu_m > 0 and found.ram_mb > 64 and found.slots == max(1, found.cpu_m // 500)
    assert await probe(cpu=0.25, ram_mb=10, slots=3) == Resources(250, 10, 3)
    assert (await probe(cpu=0.25)).slots == 1


def test_a_worker_remembers_its_host_and_not_its_process(tmp_path: Path) -> None:
    first, second = Identity.of("x", tmp_path), Identity.of("x", tmp_path)
    assert (first.name, first.host_id) == (second.name, second.host_id)
    assert first.instance != second.instance
    assert [path.name for path in tmp_path.iterdir()] == ["host-id"]


def test_its_folder_is_closed_to_others(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartUpError, match=r"The worker's folder .*file/x cannot be used .*set GYOZA_DATA_DIR"):
        make_folder(tmp_path / "file" / "x")


def test_the_marks_of_the_disk_are_two_percentages():
    assert WorkerSettings.from_environment({}, name="w").image_disk == Watermark(85, 75)
    named = WorkerSettings.from_environment({"GYOZA_IMAGE_DISK_PERCENT": "60/50"}, name="w")
    assert named.image_disk == Watermark(60, 50)


@pytest.mark.parametrize("text", ["85", "75/85", "101/50", "85/75/60", "high"])
def test_marks_that_are_none_are_refused(text: str):
    with pytest.raises(StartUpError, match="GYOZA_IMAGE_DISK_PERCENT"):
        WorkerSettings.from_environment({"GYOZA_IMAGE_DISK_PERCENT": text}, name="w")
