"""`gyoza worker probe`: what a worker here would give, without a server; the GPU library is a fake."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
from typer.testing import CliRunner

from gyoza.cli.app import app
from gyoza.worker import nvml

from .nvml_fake import Card, FakeNvml

Gyoza = Callable[..., Any]
TOLD = ("worker", "probe", "--runtime", "process", "--cpu", "2", "--ram-mb", "512", "--slots", "3")


@pytest.fixture
def gyoza() -> Gyoza:
    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("GYOZA_WORKER_NAME", "box")
    return tmp_path


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml(Card("GPU-a", reserved_mb=500), Card("GPU-b"), Card("GPU-c", computing=lambda: {1: 100}))
    monkeypatch.setattr(nvml, "library", lambda: fake)
    return fake


def test_everything_is_printed_with_its_reason(gyoza: Gyoza, driver: FakeNvml, data: Path) -> None:
    driver.cards[1].fault = pynvml.NVML_ERROR_GPU_IS_LOST
    result = gyoza(*TOLD)
    assert result.exit_code == 0, result.stderr
    shown = dict(line.split(None, 1) for line in result.stdout.partition("\n\n")[0].splitlines())
    assert shown["cpu"].startswith("2 (--cpu, instead of ")
    assert shown["ram_mb"].startswith("512 (--ram-mb, instead of ")
    assert shown["slots"] == "3 (--slots, instead of 4: 2 for each CPU)"
    assert shown["disk"].endswith(f"MB are free in {data}/workers/box")
    assert (shown["engine"], shown["gpus"]) == ("process (in plain processes)", "2")
    assert shown["gpu"] == "1   lost (GPU is lost)"
    assert result.stdout.partition("\n\n")[2] == (
        "ID  NAME       VRAM MB  USED MB  UUID\n"
        "0   NVIDIA L4  24000    500      GPU-a\n"
        "2   NVIDIA L4  24000    100      GPU-c\n"
    )


def test_json_says_the_same(gyoza: Gyoza, driver: FakeNvml) -> None:
    found = json.loads(gyoza(*TOLD, "-o", "json").stdout)
    assert (found["cpu"], found["ram_mb"], found["slots"]) == (2, 512, 3)
    assert found["engine"] == {"name": "process", "because": "in plain processes"}
    first = {"id": 0, "uuid": "GPU-a", "name": "NVIDIA L4", "vram_mb": 24000, "foreign_mb": 500, "used_mb": 500}
    assert found["gpus"][0] == first
    assert (found["lost_gpus"], found["no_gpus"]) == ({}, None)


def test_without_a_driver_there_are_no_gpus(gyoza: Gyoza, driver: FakeNvml) -> None:
    driver.fault = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    assert "gpus    none (NVML Shared Library Not Found)\n" in gyoza(*TOLD).stdout


def test_an_engine_that_does_not_answer_is_named_with_its_reason(
    gyoza: Gyoza, driver: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    auto = json.loads(gyoza("worker", "probe", "-o", "json").stdout)["engine"]
    assert auto["name"] == "process" and auto["because"].startswith("in plain processes: Docker does not answer")
    docker = json.loads(gyoza("worker", "probe", "--runtime", "docker", "-o", "json").stdout)["engine"]
    assert docker["name"] is None and docker["because"].startswith("Docker does not answer")
