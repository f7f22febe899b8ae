"""The output of ops, byte for byte, on both engines: whatever they write, however they end."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from gyoza.worker.engines import Engine, Exit, Job, Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect, info
from gyoza.worker.engines.log import Log
from gyoza.worker.engines.marks import Mark
from gyoza.worker.engines.recording import Recording

from .conftest import BASE_IMAGE
from .proxies import Proxy
from .test_engines import MakeJob, until

pytestmark = pytest.mark.timeout(240)
MB = 2**20
HEAD = (
    "import os, pathlib, random, sys, time; out, err = sys.stdout.buffer, sys.stderr.buffer\n"
    "io = pathlib.Path(os.environ['GYOZA_IO_DIR'])\n"
    "def meet(name):\n"
    "    (io / name).touch()\n"
    "    while not (io / ('go-' + name)).exists(): time.sleep(0.01)\n"
)
RANDOM = "data = random.Random(7).randbytes(3_000_000); "
DATA = random.Random(7).randbytes(3_000_000)


class Logged:
    """A job and its log, which is read as it grows."""

    def __init__(self, job: Job, **settings: Any):
        self.path = job.io_dir.parent / "log"
        self.log = Log(self.path, **settings)
        self.job = replace(job, log=self.log)

    @property
    def bytes(self) -> bytes:
        return self.path.read_bytes()

    async def met(self, name: str) -> None:
        """The program has come so far, and waits until it may `go`."""
        await until((self.job.io_dir / name).exists)

    def go(self, name: str) -> None:
        (self.job.io_dir / f"go-{name}").touch()


MakeLogged = Callable[..., Logged]


@pytest.fixture
def logged(job: MakeJob) -> MakeLogged:
    def make(program: str, **settings: Any) -> Logged:
        return Logged(job(HEAD + program), **settings)

    return make


async def ran(engine: Engine, made: Logged) -> Exit:
    with closing(made.log):
        async with engine.started(made.job, await engine.ready(made.job)) as running:
            return await running.wait()


WRITERS = {
    "binary": (RANDOM + "out.write(data)", DATA),
    "an endless line": ("out.write(b'x' * 5_000_000)", b"x" * 5_000_000),
    "odd lines": (r"out.write(b'\n\n\r\n\r 10%\r 20%\n\nend')", b"\n\n\r\n\r 10%\r 20%\n\nend"),
    "on stderr": (RANDOM + "err.write(data)", DATA),
    "right before SIGKILL": ("out.write(b'y' * 60_000 + b'z'); out.flush(); os.kill(os.getpid(), 9)",
               b"y" * 60_000 + b"z"),
    "slowly": ("for n in range(20): out.write(b'%d' % n); out.flush(); time.sleep(0.05)",
               b"".join(b"%d" % n for n in range(20))),
    "nothing": ("", b""),
}  # fmt: skip


@pytest.mark.parametrize("how", WRITERS)
async def test_every_byte_is_in_the_log(engine: Engine, logged: MakeLogged, how: str) -> None:
    program, expected = WRITERS[how]
    made = logged(program)
    await ran(engine, made)
    assert made.log.over.is_set()
    assert made.bytes == expected


async def test_both_streams_are_in_the_log_each_in_its_order(engine: Engine, logged: MakeLogged) -> None:
    made = logged("for n in range(2000): stream = out if n % 3 else err; stream.write(b'%d\\n' % n); stream.flush()")
    await ran(engine, made)
    numbers = [int(line) for line in made.bytes.split()]
    assert sorted(numbers) == list(range(2000))
    for rest in (0, 1):
        ordered = [number for number in numbers if (number % 3 == 0) is (rest == 0)]
        assert ordered == sorted(ordered)


async def test_what_is_written_is_there_while_the_program_runs_also_without_a_line_feed(
    engine: Engine, logged: MakeLogged
) -> None:
    made = logged("out.write(b'10%\\r'); out.flush(); meet('a'); out.write(b'done'); out.flush(); meet('b')")
    with closing(made.log):
        async with engine.started(made.job, await engine.ready(made.job)) as running:
            await made.met("a")
            await until(lambda: made.bytes == b"10%\r")
            made.go("a")
            await made.met("b")
            await until(lambda: made.bytes == b"10%\rdone")
            made.go("b")
            await running.wait()
    assert made.bytes == b"10%\rdone"


async def test_of_a_flood_the_beginning_and_the_end_are_kept_and_the_memory_is_not(
    engine: Engine, logged: MakeLogged
) -> None:
    program = (
        "line = b'x' * 99 + b'\\n'\nout.write(b'the beginning\\n')\nfor _ in range(10_000): out.write(line * 100)\n"
    )
    made = logged(program + "out.write(b'the end')", limit=4 * MB)
    running = asyncio.create_task(ran(engine, made))
    before = most = psutil.Process().memory_info().rss
    while not running.done():
        await asyncio.wait({running}, timeout=0.01)
        most = max(most, psutil.Process().memory_info().rss)
    assert (await running).exit_code == 0
    assert most - before < 30 * MB
    said = made.bytes
    assert 3 * MB < len(said) <= 4 * MB
    assert said.startswith(b"the beginning\nxxx") and said.endswith(b"x\nthe end")
    assert b"the log is full" in said
    left_out = int(said.split(b"[gyoza: ")[2].split()[0])
    own = sum(len(part.split(b"]\n")[0]) + 11 for part in said.split(b"\n[gyoza: ")[1:])
    assert len(said) - own + left_out == 100_000_000 + len(b"the beginning\nthe end")


# What follows is about Docker alone: a plain process ends with its worker, and has no engine to lose.


@asynccontextmanager
async def through(proxy: Proxy, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Docker]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{proxy.path}")
    engine = Docker(owner, base_image=BASE_IMAGE)
    yield engine
    await engine.close()


@pytest.fixture
async def proxy(docker_ready: None, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with Proxy(tmp_path / "docker.sock") as proxy:
        yield proxy


@pytest.mark.docker
@pytest.mark.parametrize("stops", [1, 3])
async def test_no_byte_is_lost_or_doubled_when_the_connection_to_docker_is_cut(
    proxy: Proxy, owner: Owner, logged: MakeLogged, monkeypatch: pytest.MonkeyPatch, stops: int
) -> None:
    parts = [random.Random(n).randbytes(400_000) + b"%d" % n for n in range(stops + 1)]
    program = (
        "for n in range(STOPS + 1):\n"
        "    out.write(random.Random(n).randbytes(400_000) + b'%d' % n); out.flush()\n"
        "    n < STOPS and meet(str(n))"
    )
    made = logged(program.replace("STOPS", str(stops)))
    with closing(made.log):
        async with (
            through(proxy, owner, monkeypatch) as engine,
            engine.started(made.job, await engine.ready(made.job)) as running,
        ):
            for stop in range(stops):
                await made.met(str(stop))
                proxy.cut()
                made.go(str(stop))
            await running.wait()
    assert made.bytes == b"".join(parts)


@pytest.mark.docker
async def test_what_was_written_while_docker_was_away_follows_when_it_is_back(
    proxy: Proxy, owner: Owner, logged: MakeLogged, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = logged("print('before', flush=True); meet('a'); print('meanwhile', flush=True); meet('b'); print('after')")
    with closing(made.log):
        async with (
            through(proxy, owner, monkeypatch) as engine,
            engine.started(made.job, await engine.ready(made.job)) as running,
        ):
            await made.met("a")
            proxy.is_down = True
            proxy.cut()
            made.go("a")
            await made.met("b")
            assert b"meanwhile" not in made.bytes
            proxy.is_down = False
            await until(lambda: b"meanwhile" in made.bytes)
            made.go("b")
            await running.wait()
    assert made.bytes == b"before\nmeanwhile\nafter\n"


@pytest.mark.docker
async def test_a_stream_that_does_not_end_with_its_container_is_left(
    proxy: Proxy, owner: Owner, logged: MakeLogged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.engines.recording.LAST_BYTES_S", 0.3)
    made = logged("out.write(b'all of it'); out.flush(); meet('a')")
    with closing(made.log):
        async with (
            through(proxy, owner, monkeypatch) as engine,
            engine.started(made.job, await engine.ready(made.job)) as running,
        ):
            await made.met("a")
            proxy.holds = True
            made.go("a")
            await asyncio.wait_for(running.wait(), 20)
            proxy.cut()
    assert made.bytes == b"all of it"


LINES = (
    "def lines(first, end): out.writelines(b'%07d %s\\n' % (n, b'x' * 91) for n in range(first, end)); out.flush()\n"
)


def lines(first: int, end: int) -> bytes:
    """100 bytes each."""
    return b"".join(b"%07d %s\n" % (n, b"x" * 91) for n in range(first, end))


def marked(log: Log) -> int:
    """How many bytes of stdout the mark is behind."""
    return Mark.from_dict(log.mark).bytes[1] if log.mark else 0


@pytest.mark.docker
async def test_no_byte_is_lost_or_doubled_when_docker_has_forgotten_the_beginning(
    proxy: Proxy, owner: Owner, logged: MakeLogged, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "for n in range(5): lines(n * 65_000, (n + 1) * 65_000); meet(str(n))\nlines(325_000, 330_000)"
    made = logged(LINES + program)
    with closing(made.log):
        async with (
            through(proxy, owner, monkeypatch) as engine,
            engine.started(made.job, await engine.ready(made.job)) as running,
        ):
            for n in range(5):
                await made.met(str(n))
                await until(lambda n=n: marked(made.log) > n * 6_500_000, within_s=60)
                if n == 4:
                    proxy.cut()
                made.go(str(n))
            await running.wait()
    assert made.bytes == lines(0, 330_000)


@pytest.mark.docker
async def test_bytes_that_docker_itself_has_lost_are_said_to_be_missing(
    proxy: Proxy, owner: Owner, logged: MakeLogged, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = logged(LINES + "lines(0, 100); meet('a'); lines(100, 330_000); meet('b')")
    with closing(made.log):
        async with (
            through(proxy, owner, monkeypatch) as engine,
            engine.started(made.job, await engine.ready(made.job)) as running,
        ):
            await made.met("a")
            await until(lambda: made.log.size == 100 * 100)
            proxy.is_down = True
            proxy.cut()
            made.go("a")
            await made.met("b")
            proxy.is_down = False
            made.go("b")
            await running.wait()
    assert made.bytes.startswith(lines(0, 100))
    assert made.bytes.count(b"[gyoza: Docker was out of reach") == 1
    assert b"%07d" % 329_999 in made.bytes


@pytest.mark.docker
async def test_a_later_process_goes_on_at_the_byte_where_an_earlier_one_was_killed(
    docker: Docker, logged: MakeLogged, tmp_path: Path
) -> None:
    """The earlier one is played by a task that is cancelled, and a log that nobody ends."""
    made = logged(
        "data = random.Random(7).randbytes(3_000_000) + b'\\n'\n"
        "out.write(data); meet('a'); err.write(b'meanwhile\\n'); err.flush(); meet('b'); out.write(data)"
    )
    path = tmp_path / "log"
    client = await connect()
    await info(client)
    with closing(made.log):
        async with docker.started(made.job, await docker.ready(made.job)) as running:
            await made.met("a")
            earlier = Log(path)
            recording = Recording(client, made.job.name, earlier)
            recording.resume()
            await until(lambda: earlier.size > 0)
            await recording.abandon()
            earlier.close()
            made.go("a")
            await made.met("b")
            with closing(Log(path, goes_on=True)) as later:
                assert 0 < later.size <= len(DATA) + 1
                recording = Recording(client, made.job.name, later)
                recording.resume()
                made.go("b")
                await running.wait()
                await recording.finish()
                assert later.over.is_set()
    await disconnect(client)
    assert path.read_bytes() == DATA + b"\nmeanwhile\n" + DATA + b"\n"
