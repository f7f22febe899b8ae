"""Ops as a worker would start them: a module, a folder, a process that sees `gyoza.op` and nothing else of Gyoza."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import gyoza

OP = Path(gyoza.__file__).parent / "op"


@dataclass
class Ended:
    code: int
    stdout: str
    stderr: str
    folder: Path

    def _json(self, name: str) -> Any:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def outputs(self) -> Any:
        return self._json("outputs.json")

    @property
    def error(self) -> Any:
        return self._json("error.json")

    @property
    def events(self) -> list[Any]:
        path = self.folder / "events.ndjson"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gyoza.op` as a bundle carries it."""
    folder = tmp_path_factory.mktemp("lib")
    (folder / "gyoza" / "op").mkdir(parents=True)
    (folder / "gyoza" / "__init__.py").touch()
    for path in OP.glob("*.py"):
        (folder / "gyoza" / "op" / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def io_folder(tmp_path: Path) -> Path:
    (tmp_path / "io").mkdir()
    return tmp_path / "io"


@pytest.fixture
def start(tmp_path: Path, lib: Path, io_folder: Path) -> Callable[..., "subprocess.Popen[str]"]:
    def start(source: str, inputs: Any, *arguments: str, python: str = sys.executable) -> "subprocess.Popen[str]":
        (tmp_path / "app").mkdir(exist_ok=True)
        (tmp_path / "app" / "my_op.py").write_text(dedent(source))
        if inputs is not None:
            (io_folder / "inputs.json").write_text(inputs if isinstance(inputs, str) else json.dumps(inputs))
        return subprocess.Popen(
            [python, "-m", "gyoza.op", *(arguments or ("my_op:work",))],
            cwd=tmp_path / "app",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(lib), "GYOZA_IO_DIR": str(io_folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(start: Callable[..., "subprocess.Popen[str]"], io_folder: Path) -> Callable[..., Ended]:
    def run(source: str, inputs: Any, *arguments: str, python: str = sys.executable) -> Ended:
        with start(source, inputs, *arguments, python=python) as process:
            stdout, stderr = process.communicate(timeout=60)
        return Ended(process.returncode, stdout, stderr, io_folder)

    return run
