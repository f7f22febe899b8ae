"""What only plain processes have: no images, no network to take away, memory that is watched instead of limited."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner
from gyoza.worker.engines.process import Process

pytestmark = pytest.mark.timeout(60)
MakeJob = Callable[..., Job]


async def raises(reason: str, doing: Awaitable[Any]) -> str:
    with pytest.raises(AttemptError) as caught:
        await doing
    assert caught.value.reason == reason, caught.value.detail
    return caught.value.detail


async def test_an_image_alone_needs_a_docker_worker(process: Process, job: MakeJob) -> None:
    made = job(image="ghcr.io/team/op:1", bundle=None, archive=None)
    assert "needs a Docker worker" in await raises("image_not_found", process.ready(made))


async def test_an_op_that_must_have_no_network_is_not_run_with_one(process: Process, job: MakeJob) -> None:
    assert "needs a Docker worker" in await raises("not_allowed", process.ready(job(network=False)))


async def test_an_op_that_asks_for_a_user_is_not_run_as_another(process: Process, job: MakeJob) -> None:
    assert "'games'" in await raises("not_allowed", process.ready(job(user="games")))


async def test_the_environment_is_minimal(process: Process, job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYTHING_ELSE", "x")
    made = job("import json, os; json.dump(dict(os.environ), open(os.environ['GYOZA_IO_DIR'] + '/outputs.json', 'w'))")
    async with process.started(made, await process.ready(made)) as running:
        await running.wait()
    said = (made.io_dir / "outputs.json").read_text()
    assert "ANYTHING_ELSE" not in said and '"CUDA_VISIBLE_DEVICES": ""' in said


async def test_its_gpus_are_named_to_it(process: Process, job: MakeJob) -> None:
    made = job("import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'])", gpus=["GPU-a"])
    async with process.started(made, await process.ready(made)) as running:
        await running.wait()
        assert await running.log_tail() == "GPU-a PCI_BUS_ID\n"


async def test_memory_that_processes_share_is_counted_once(process: Process, job: MakeJob) -> None:
    fork = "for _ in range(4): os.fork() or (time.sleep(1), os._exit(0))"
    program = f"import os, time; x = b'y' * (60 * 2**20)\n{fork}\ntime.sleep(1)"
    made = job(program)
    async with process.started(made, await process.ready(made)) as running:
        ended = await running.wait()
    assert (ended.exit_code, ended.oom_killed) == (0, False)


async def test_memory_is_counted_over_all_processes(process: Process, job: MakeJob) -> None:
    program = "import os, time\nfor _ in range(4): os.fork()\nx = b'y' * (30 * 2**20)\ntime.sleep(60)"
    made = job(program)
    async with process.started(made, await process.ready(made)) as running:
        assert (await running.wait()).oom_killed


async def test_an_environment_that_was_left_half_built_is_built_anew(
    owner: Owner, job: MakeJob, tmp_path: Path
) -> None:
    engine = Process(owner, tmp_path / "new")
    made = job("print('whole')")
    folder = Path((await engine.ready(made)).name)
    (folder / "complete").unlink()
    (folder / "app" / "main.py").unlink()
    async with engine.started(made, await engine.ready(made)) as running:
        await running.wait()
        assert await running.log_tail() == "whole\n"


async def test_a_failed_build_leaves_no_environment(
    owner: Owner, job: MakeJob, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    archive = tmp_path / "bundle.tar.gz"
    files = {"app/main.py": b"", "requirements.lock": b"none==1 --hash=sha256:" + b"0" * 64}
    made = job(bundle=make_bundle(archive, files), archive=archive)
    await raises("bundle_broken", Process(owner, tmp_path / "new").ready(made))
    assert [path.suffix for path in (tmp_path / "new" / "environments").iterdir()] == [".lock"]


async def test_a_cancelled_build_leaves_no_environment(
    owner: Owner, job: MakeJob, make_bundle: Callable[..., Bundle], tmp_path: Path, wheel: tuple[str, bytes, str]
) -> None:
    archive, (name, data, lock) = tmp_path / "bundle.tar.gz", wheel
    files = {"app/main.py": b"", f"wheels/{name}": data, "requirements.lock": lock.encode()}
    made = job(bundle=make_bundle(archive, files), archive=archive)
    environments = tmp_path / "new" / "environments"
    building = asyncio.create_task(Process(owner, tmp_path / "new").ready(made))
    async with asyncio.timeout(20):
        while not list(environments.glob("*/env")):
            await asyncio.sleep(0.01)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert [path.suffix for path in environments.iterdir()] == [".lock"]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left_open(process: Process, job: MakeJob) -> None:
    made = job()
    ready = await process.ready(made)

    async def run() -> None:
        async with process.started(job(), ready) as running:
            await running.wait()

    await run()
    before = open_files()
    for _ in range(5):
        await run()
    assert open_files() == before
