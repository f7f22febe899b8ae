"""The same for a user without rights, whatever user runs these tests."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import gyoza

from .stage import Stage, free_port

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
PYTHONS = (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
PATHS = os.pathsep.join([str(Path(gyoza.__file__).parents[1]), sysconfig.get_path("purelib")])


@pytest.fixture(scope="module")
def command() -> Sequence[str]:
    """How an ordinary user starts `gyoza` here."""
    if os.geteuid() != 0:
        return (sys.executable, "-m", "gyoza.cli")
    if shutil.which("setpriv") is None:
        pytest.skip("root can become another user only with setpriv (util-linux), which is missing")
    for python in PYTHONS:
        tried = [*AS_NOBODY, "env", f"PYTHONPATH={PATHS}", python, "-c", "import gyoza.server.process"]
        if subprocess.run(tried, cwd="/", capture_output=True).returncode == 0:
            return (*AS_NOBODY, "env", f"PYTHONPATH={PATHS}", python, "-m", "gyoza.cli")
    pytest.skip(f"user nobody can read none of these with what Gyoza needs: {', '.join(PYTHONS)}")


@pytest.fixture
def users_stage(command: Sequence[str]) -> Iterator[Stage]:
    """A folder that is the user's own; pytest's are closed to others."""
    with tempfile.TemporaryDirectory(prefix="gyoza-user-") as folder:
        stage = Stage(Path(folder))
        stage.python = command
        stage.environ |= {"HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        yield stage
        assert stage.end() == []


def test_a_cluster_of_his_own_runs_an_op(users_stage: Stage):
    up = users_stage.up()
    op = users_stage.op("whoami", 'echo "{\\"uid\\": $(id -u)}" >"$GYOZA_IO_DIR/outputs.json"')
    run = users_stage.run("run", op, "--follow", "-o", "json")
    assert run.ends() == 0, run.said
    (run_id,) = [run["id"] for run in users_stage.client.list_runs()["data"]]
    assert users_stage.client.get_run(run_id)["outputs"] == {"uid": users_stage.data.stat().st_uid}
    assert (users_stage.data / "api-key").stat().st_mode & 0o777 == 0o600
    assert users_stage.data.stat().st_uid != 0
    assert up.stop() == 0, up.said


@pytest.mark.parametrize("arguments", [("server", "start"), ("worker", "start", "--name", "w")], ids=" ".join)
def test_a_data_folder_that_he_may_not_write_to_is_named(users_stage: Stage, arguments: tuple[str, ...]):
    closed = users_stage.folder / "closed"
    closed.mkdir(mode=0o555)
    environ = {"GYOZA_DATA_DIR": str(closed), "GYOZA_PORT": str(free_port())}
    users_stage.run(*arguments, **environ).refuses(str(closed), "GYOZA_DATA_DIR")
