"""What both engines promise: one suite, run on plain processes and on Docker containers."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Engine, Exit, Job, Owner
from gyoza.worker.engines.cleanup import remove_folder

pytestmark = pytest.mark.timeout(60)
MakeJob = Callable[..., Job]
MakeBundle = Callable[..., Bundle]

BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")
SLEEP = "import time; time.sleep(600)"
SAY_READY = "open(os.environ['GYOZA_IO_DIR'] + '/ready', 'w').close(); "
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SAY_READY + "time.sleep(600)"
POLITE = """
import signal, sys, time
def leave(*_):
    print('bye', flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, leave)
open(os.environ['GYOZA_IO_DIR'] + '/ready', 'w').close()
while True:
    time.sleep(0.05)  # a signal just before one long sleep would be seen only after it
"""
DETACHED = """
import subprocess, sys, time
child = "import os, time; os.setsid(); open(os.environ['GYOZA_IO_DIR'] + '/ready', 'w').close(); time.sleep(600)"
subprocess.Popen([sys.executable, '-c', child])
"""
EAT = "x = bytearray(400 * 2**20); x[::4096] = b'y' * len(x[::4096]); import time; time.sleep(600)"


async def until(true: Callable[[], object], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.02)


async def run(engine: Engine, job: Job) -> Exit:
    async with engine.started(job, await engine.ready(job)) as running:
        return await running.wait()


async def run_saying(engine: Engine, job: Job) -> tuple[Exit, str]:
    async with engine.started(job, await engine.ready(job)) as running:
        ended = await running.wait()
        return ended, await running.log_tail()


def processes_of(job: Job) -> list[psutil.Process]:
    """Also those inside containers: they are processes of this machine, and tests run as root or see their own."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("GYOZA_RUN_ID") == job.run_id:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def raises(reason: str, doing: Awaitable[Any]) -> str:
    with pytest.raises(AttemptError) as caught:
        await doing
    assert caught.value.reason == reason, caught.value.detail
    return caught.value.detail


async def test_it_can_run_here(engine: Engine) -> None:
    assert await engine.can_run() is None


@pytest.mark.parametrize("code", [0, 3])
async def test_an_exit_code_is_reported(engine: Engine, job: MakeJob, code: int) -> None:
    ended = await run(engine, job(f"raise SystemExit({code})"))
    assert (ended.exit_code, ended.signal, ended.oom_killed) == (code, None, False)


async def test_waiting_again_gives_the_same_answer(engine: Engine, job: MakeJob) -> None:
    made = job("pass")
    async with engine.started(made, await engine.ready(made)) as running:
        assert await running.wait() == await running.wait()


async def test_the_op_sees_its_folder_and_its_variables(engine: Engine, job: MakeJob) -> None:
    made = job(
        "import json, os; d = os.environ['GYOZA_IO_DIR']; inputs = json.load(open(d + '/inputs.json'));"
        "os.mkdir(d + '/sub'); open(d + '/sub/file', 'w').write('made');"
        "json.dump({'inputs': inputs, 'env': dict(os.environ)}, open(d + '/outputs.json', 'w'))"
    )
    assert (await run(engine, made)).exit_code == 0
    told = json.loads((made.io_dir / "outputs.json").read_text())
    assert told["inputs"] == {"x": 1}
    assert told["env"]["GYOZA_RUN_ID"] == made.run_id
    assert told["env"]["GYOZA_ATTEMPT"] == "1"
    assert told["env"]["GYOZA_IO_DIR"] == engine.io_path(made.io_dir)
    assert (made.io_dir / "sub" / "file").read_text() == "made"


async def test_the_env_of_a_job_cannot_change_what_the_contract_promises(engine: Engine, job: MakeJob) -> None:
    program = "import os; print(os.environ['GYOZA_RUN_ID'], os.environ['COLOUR'])"
    made = job(env={"PROGRAM": program, "GYOZA_RUN_ID": "forged", "COLOUR": "blue"})
    _, said = await run_saying(engine, made)
    assert said.split() == [made.run_id, "blue"]


async def test_secrets_of_the_worker_do_not_reach_the_op(
    engine: Engine, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYOZA_API_KEY", "top-secret")
    monkeypatch.setenv("GYOZA_DATABASE_URL", "postgresql://top-secret")
    _, said = await run_saying(engine, job("import os; print('got', dict(os.environ))"))
    assert "got" in said and "top-secret" not in said


async def test_the_log_tail_is_the_end_of_both_streams(engine: Engine, job: MakeJob) -> None:
    program = "import sys; print('x' * 5000); sys.stdout.flush(); sys.stderr.write('last words'); sys.exit(1)"
    made = job(program)
    async with engine.started(made, await engine.ready(made)) as running:
        await running.wait()
        tail, whole = await running.log_tail(50), await running.log_tail(6000)
        # Which of the streams is read first at the very end is not promised.
        assert sorted(whole) == sorted("x" * 5000 + "\n" + "last words")
        assert (len(tail), whole.endswith(tail)) == (50, True)
        assert len(await running.log_tail()) == 2000


async def test_a_flood_of_output_is_bounded_and_its_end_is_kept(engine: Engine, job: MakeJob) -> None:
    program = "import sys\nfor _ in range(60): sys.stdout.write('y' * 2**20)\nprint('\\nthe end')"
    _, said = await run_saying(engine, job(program))
    assert said.endswith("y\nthe end\n")


async def test_binary_output_harms_nothing(engine: Engine, job: MakeJob) -> None:
    program = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 20)"
    ended, said = await run_saying(engine, job(program))
    assert ended.exit_code == 0
    assert "abc" in said and "\ufffd" in said


async def test_what_it_used_is_measured(engine: Engine, job: MakeJob) -> None:
    program = "import time; x = b'y' * (64 * 2**20)\nwhile time.process_time() < 1.2: pass"
    ended = await run(engine, job(program))
    assert ended.cpu_s is not None and 0.4 < ended.cpu_s < 5
    assert ended.peak_ram_mb is not None and 60 < ended.peak_ram_mb < 128


async def test_the_memory_limit_kills_it_and_says_so(engine: Engine, job: MakeJob) -> None:
    ended = await run(engine, job(EAT))
    assert (ended.exit_code, ended.signal, ended.oom_killed) == (137, 9, True)
    assert ended.peak_ram_mb is not None and ended.peak_ram_mb >= 128


async def test_a_kill_from_outside_is_no_memory_kill(engine: Engine, job: MakeJob) -> None:
    made = job("import os; " + SAY_READY + SLEEP)
    async with engine.started(made, await engine.ready(made)) as running:
        await until((made.io_dir / "ready").exists)
        for process in processes_of(made):
            with suppress(psutil.NoSuchProcess):  # the end of one may be the end of another
                process.kill()
        ended = await running.wait()
    assert (ended.exit_code, ended.signal, ended.oom_killed) == (137, 9, False)


async def test_stop_lets_the_program_end_by_itself(engine: Engine, job: MakeJob) -> None:
    made = job("import os\n" + POLITE)
    async with engine.started(made, await engine.ready(made)) as running:
        await until((made.io_dir / "ready").exists)
        await running.stop(grace_s=30)
        assert (await running.wait()).exit_code == 7
        assert "bye" in await running.log_tail()


async def test_a_program_that_ignores_sigterm_dies_after_the_grace(engine: Engine, job: MakeJob) -> None:
    made = job("import os; " + STUBBORN)
    async with engine.started(made, await engine.ready(made)) as running:
        await until((made.io_dir / "ready").exists)
        began = time.monotonic()
        await running.stop(grace_s=1)
        assert 1 <= time.monotonic() - began < 10
        assert processes_of(made) == []
        assert (await running.wait()).signal == signal.SIGKILL


async def test_stopping_what_has_ended_is_fine(engine: Engine, job: MakeJob) -> None:
    made = job("raise SystemExit(4)")
    async with engine.started(made, await engine.ready(made)) as running:
        await running.wait()
        await running.stop(grace_s=30)
        assert (await running.wait()).exit_code == 4


async def test_children_with_a_session_of_their_own_end_with_their_program(engine: Engine, job: MakeJob) -> None:
    made = job("import os\n" + DETACHED + SAY_READY.replace("ready", "parent") + "\nwhile True: time.sleep(1)")
    async with engine.started(made, await engine.ready(made)) as running:
        await until((made.io_dir / "ready").exists)
        await running.stop(grace_s=0)
        assert processes_of(made) == []


async def test_children_do_not_outlive_a_program_that_ended(engine: Engine, job: MakeJob) -> None:
    wait = "while not os.path.exists(os.environ['GYOZA_IO_DIR'] + '/ready'): time.sleep(0.01)"
    made = job("import os\n" + DETACHED + wait)
    async with engine.started(made, await engine.ready(made)) as running:
        assert (await running.wait()).exit_code == 0
        assert processes_of(made) == []


async def test_leaving_ends_what_still_runs(engine: Engine, job: MakeJob) -> None:
    made = job("import os; " + STUBBORN)
    with pytest.raises(ZeroDivisionError):
        async with engine.started(made, await engine.ready(made)):
            await until((made.io_dir / "ready").exists)
            raise ZeroDivisionError
    assert processes_of(made) == []


async def test_cancelling_ends_what_still_runs(engine: Engine, job: MakeJob) -> None:
    made = job("import os; " + STUBBORN)
    task = asyncio.create_task(run(engine, made))
    await until((made.io_dir / "ready").exists)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes_of(made) == []
    assert await engine.sweep() == 0


async def test_cancelling_a_start_at_any_moment_leaves_nothing(engine: Engine, job: MakeJob) -> None:
    ready = await engine.ready(job())
    for moment in range(8):
        made = job(SLEEP)

        async def start(made: Job = made) -> None:
            async with engine.started(made, ready) as running:
                await running.wait()

        task = asyncio.create_task(start())
        await asyncio.wait({task}, timeout=moment * 0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processes_of(made) == []
    assert await engine.sweep() == 0


async def test_an_attempt_never_runs_twice_at_once(engine: Engine, job: MakeJob) -> None:
    made = job("import os; " + SAY_READY + SLEEP)
    ready = await engine.ready(made)
    async with engine.started(made, ready) as running:
        await until((made.io_dir / "ready").exists)
        assert "runs here already" in await raises("start_failed", engine.started(made, ready).__aenter__())
        assert processes_of(made) != []
        await running.stop(0)


async def test_many_runs_at_once_share_one_build(engine: Engine, job: MakeJob) -> None:
    jobs = [job(f"raise SystemExit({code})") for code in range(5)]
    readies = await asyncio.gather(*(engine.ready(made) for made in jobs))
    assert len({ready.name for ready in readies}) == 1
    assert [ended.exit_code for ended in await asyncio.gather(*(run(engine, made) for made in jobs))] == list(range(5))


async def test_a_run_cannot_change_the_files_of_the_next(engine: Engine, job: MakeJob) -> None:
    vandal = "import os; print(open('data.txt').read())\ntry: open('data.txt', 'w').write('spoilt')\nexcept OSError: 0"
    await run(engine, job(vandal))
    assert (await run_saying(engine, job(vandal)))[1].strip() == "as shipped"


async def test_files_of_the_op_can_be_removed(engine: Engine, job: MakeJob) -> None:
    program = (
        "import os; os.umask(0o077); os.chdir(os.environ['GYOZA_IO_DIR']); os.mkdir('d'); open('d/f', 'w').close();"
        "os.chmod('d', 0o500)"
    )
    made = job(program)
    await run(engine, made)
    remove_folder(made.io_dir)
    assert not made.io_dir.exists()


async def test_a_bundle_brings_its_packages(
    engine: Engine, job: MakeJob, make_bundle: MakeBundle, tmp_path: Path, wheel: tuple[str, bytes, str]
) -> None:
    name, data, lock = wheel
    archive = tmp_path / "bundle.tar.gz"
    files = {
        "app/main.py": b"import tinypkg; print('wheel says', tinypkg.WORD)",
        f"wheels/{name}": data,
        "requirements.lock": lock.encode(),
    }
    made = job(bundle=make_bundle(archive, files), archive=archive)
    ended, said = await run_saying(engine, made)
    assert (ended.exit_code, said.strip()) == (0, "wheel says dumpling")


async def test_a_wheel_with_another_hash_breaks_the_bundle(
    engine: Engine, job: MakeJob, make_bundle: MakeBundle, tmp_path: Path, wheel: tuple[str, bytes, str]
) -> None:
    name, data, lock = wheel
    archive = tmp_path / "bundle.tar.gz"
    files = {f"wheels/{name}": data, "requirements.lock": lock[:-4].encode() + b"0000", "app/main.py": b""}
    made = job(bundle=make_bundle(archive, files), archive=archive)
    assert "hash" in (await raises("bundle_broken", engine.ready(made))).lower()


async def test_a_bundle_for_another_python_says_so(
    engine: Engine, job: MakeJob, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    archive = tmp_path / "bundle.tar.gz"
    lock = b"missing==1.0 --hash=sha256:" + b"0" * 64
    made = job(
        bundle=make_bundle(archive, {"app/main.py": b"", "requirements.lock": lock}, python="3.99"), archive=archive
    )
    detail = await raises("bundle_broken", engine.ready(made))
    assert "Python 3.99" in detail and "Python 3.1" in detail


async def test_a_bundle_needs_no_python(engine: Engine, job: MakeJob, make_bundle: MakeBundle, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar.gz"
    files = {"app/op.sh": b'#!/bin/sh\ncat note.txt > "$GYOZA_IO_DIR/said"\nexit 5\n', "app/note.txt": b"from a shell"}
    made = job(bundle=make_bundle(archive, files, entry=["./op.sh"], python=None), archive=archive)
    assert (await run(engine, made)).exit_code == 5
    assert (made.io_dir / "said").read_text() == "from a shell"


async def test_an_entry_that_is_not_there_breaks_the_bundle(
    engine: Engine, job: MakeJob, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    archive = tmp_path / "bundle.tar.gz"
    bundle = make_bundle(archive, {"app/main.py": b""}, entry=["./not-there"])
    assert "./not-there" in await raises("bundle_broken", run(engine, job(bundle=bundle, archive=archive)))


async def test_a_broken_archive_is_refused(engine: Engine, job: MakeJob, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar.gz"
    archive.write_bytes(b"no archive at all")
    bundle = Bundle("gyoza://files/x", "sha256:" + "b" * 64, 17, ("true",))
    detail = await raises("bundle_broken", engine.ready(job(bundle=bundle, archive=archive)))
    assert "cannot be read" in detail


async def test_the_folder_is_closed_to_no_user_of_the_op(engine: Engine, job: MakeJob) -> None:
    made = job("import os; os.rename(os.environ['GYOZA_IO_DIR'] + '/inputs.json', os.environ['GYOZA_IO_DIR'] + '/x')")
    assert (await run(engine, made)).exit_code == 0
    assert stat.S_IMODE(made.io_dir.parent.stat().st_mode) == 0o700


async def test_a_sweep_leaves_what_this_process_runs(engine: Engine, job: MakeJob) -> None:
    made = job("import os; " + SAY_READY + SLEEP)
    async with engine.started(made, await engine.ready(made)):
        await until((made.io_dir / "ready").exists)
        assert await engine.sweep() == 0
        assert processes_of(made) != []


WORKER = """
import asyncio, sys, threading
from pathlib import Path
from gyoza.worker.engines import Job, Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.process import Process
from gyoza.models.bundle import Bundle

async def main(kind, base_image, cluster, name, folder, run_id, io_dir, archive, digest, python, program):
    owner = Owner(cluster, "here", name)
    engine = Docker(owner, base_image=base_image) if kind == "docker" else Process(owner, Path(folder))
    bundle = Bundle("gyoza://files/x", digest, 1, ("python", "main.py"), python)
    job = Job(run_id, 1, Path(io_dir), 1000, 128, bundle=bundle, archive=Path(archive), env={"PROGRAM": program})
    async with engine.started(job, await engine.ready(job)) as running:
        await running.wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_worker_left_is_swept_and_nothing_of_its_neighbour(
    engine: Engine, owner: Owner, job: MakeJob, tmp_path: Path, engine_of: Callable[[Engine, Owner, Path], Engine]
) -> None:
    workers: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
    for name in ("doomed", "neighbour"):
        made = job("import os; " + STUBBORN)
        assert made.bundle is not None
        bundle, program = made.bundle, made.env["PROGRAM"]
        place = (BASE_IMAGE, owner.cluster, name, str(tmp_path / "folder"), made.run_id, str(made.io_dir))
        what = (str(made.archive), bundle.digest, str(bundle.python), program)
        workers[name] = made, subprocess.Popen([sys.executable, "-c", WORKER, engine.name, *place, *what])
    try:
        for made, _ in workers.values():
            await until((made.io_dir / "ready").exists)
        for _, worker in workers.values():
            worker.kill()
        successors = {
            name: engine_of(engine, Owner(owner.cluster, "here", name), tmp_path / "folder") for name in workers
        }
        assert await successors["doomed"].sweep() == 1
        assert processes_of(workers["doomed"][0]) == []
        assert processes_of(workers["neighbour"][0]) != []
        assert await successors["doomed"].sweep() == 0
        assert await successors["neighbour"].sweep() == 1
        assert processes_of(workers["neighbour"][0]) == []
        assert list(tmp_path.glob("folder/runs/*/*")) == []
        for successor in successors.values():
            await successor.close()
    finally:
        for _, worker in workers.values():
            worker.kill()
            worker.wait()


async def test_its_processes_are_known_by_the_numbers_of_the_host(engine: Engine, job: MakeJob) -> None:
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    one, other = job(child + SLEEP), job(SLEEP)
    async with (
        engine.started(one, await engine.ready(one)) as running,
        engine.started(other, await engine.ready(other)) as beside,
    ):
        await until(lambda: len(running.pids()) > 1 and running.pids() == {each.pid for each in processes_of(one)})
        await until(lambda: beside.pids() == {each.pid for each in processes_of(other)} != frozenset())
        assert not running.pids() & beside.pids()
        await running.stop(0)
        assert running.pids() == frozenset()
