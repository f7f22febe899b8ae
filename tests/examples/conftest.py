"""Each example packed, unpacked by hand and started as its bundle says: what a worker does, without a worker."""

import json
import os
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gyoza.client.bundle import pack
from gyoza.client.project import read_project

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass
class Unpacked:
    """An example's bundle on disk, with its environment where it needs one."""

    folder: Path
    entry: tuple[str, ...]

    def run(self, io_folder: Path, inputs: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
        (io_folder / "inputs.json").write_text(json.dumps(inputs))
        env = {
            "PATH": f"{self.folder / 'env' / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "lib"),
            "GYOZA_IO_DIR": str(io_folder),
        }
        return subprocess.run(self.entry, cwd=self.folder / "app", env=env, capture_output=True, text=True, timeout=60)


def unpack(name: str, into: Path) -> Unpacked:
    packed = pack(read_project(EXAMPLES / name), into / "packed")
    with tarfile.open(packed.path) as archive:
        how: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
        archive.extractall(into / "bundle", **how)
    if (into / "bundle" / "requirements.lock").exists():
        venv.create(into / "bundle" / "env", with_pip=False)
        into_env = ["--python", str(into / "bundle" / "env" / "bin" / "python")]
        offline = ["--quiet", "--no-index", "--require-hashes", "--find-links", "wheels", "-r", "requirements.lock"]
        command = [sys.executable, "-m", "pip", *into_env, "install", *offline]
        subprocess.run(command, cwd=into / "bundle", check=True)
    return Unpacked(into / "bundle", tuple(packed.manifest.entry))


def outputs(io_folder: Path) -> Any:
    return json.loads((io_folder / "outputs.json").read_text())


def events(io_folder: Path) -> list[Any]:
    return [json.loads(line) for line in (io_folder / "events.ndjson").read_text().splitlines()]


def error(io_folder: Path) -> Any:
    return json.loads((io_folder / "error.json").read_text())


@pytest.fixture
def io_folder(tmp_path: Path) -> Path:
    return tmp_path
