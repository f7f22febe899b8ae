"""What the embedded database keeps in a data folder, and the two locks on it.

server.lock        held by the one server that owns the folder; says its pid
postgres/          PostgreSQL's data, with its socket; closed to all but the account that runs it
postgres.alive     held by every process of that PostgreSQL: it inherits the open, locked file
postgres.log       what it says; `postgres.log.1` is the log before
postgres.new-*     a database in the making, or what is left of one that was interrupted
"""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from gyoza.models.errors import StartUpError
from gyoza.store.embedded.account import Account, own_name
from gyoza.store.embedded.binaries import MAJOR, Binaries

ROLE = "gyoza"
SOCKET = ".s.PGSQL.5432"
LOG_BYTES = 10_000_000

# What a PostgreSQL that starts, stops, recovers or is full tells (and logs) a caller; any other refusal is for good.
NOT_NOW = ("the database system is", "too many clients", "connection slots", "terminating connection")

_PROOF = "gyoza.proof"


@contextmanager
def disk_errors(root: Path) -> Generator[None]:
    """Turn what the disk refuses into a sentence for the operator."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StartUpError(
            f"Data folder {root} cannot be used: {error.strerror or error}{where}. "
            "Put that right, or choose another folder with GYOZA_DATA_DIR"
        ) from error


@dataclass(frozen=True)
class DataFolder:
    root: Path

    @property
    def pgdata(self) -> Path:
        return self.root / "postgres"

    @property
    def log(self) -> Path:
        return self.root / "postgres.log"

    def when_nothing_lives(self) -> int | None:
        """The locked file for a new PostgreSQL to inherit; None while any process of the last one is alive.

        Other than a pid, this is right after a reboot, over containers, and for what a killed postmaster leaves behind.
        """
        file = os.open(self.root / "postgres.alive", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file

    def check(self) -> bool:
        """Whether there is a database; raises StartUpError where it is not one that we can run."""
        if not self.pgdata.exists() or not any(self.pgdata.iterdir()):
            return False
        try:
            found = (self.pgdata / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise StartUpError(
                f"{self.pgdata} holds no PostgreSQL database (it has no PG_VERSION): move it away, "
                "or choose another data folder with GYOZA_DATA_DIR"
            ) from None
        if found != str(MAJOR):
            raise StartUpError(
                f"The database in {self.pgdata} was made by PostgreSQL {found}, and this Gyoza runs {MAJOR}: "
                "start the Gyoza that made it, dump it there with pg_dump, and load the dump into a new data folder"
            )
        return True

    def drop_drafts(self) -> None:
        """Remove what was left of databases in the making; an `initdb` that still runs there fails and ends."""
        for draft in self.root.glob("postgres.new-*"):
            shutil.rmtree(draft, ignore_errors=True)

    def make(self, binaries: Binaries, account: Account) -> None:
        """Make an empty database; whole or not at all, since it is made beside its place and then moved there."""
        draft = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.root))
        if account.other:
            os.chown(draft, account.uid, account.gid)
        # initdb syncs all it wrote before it ends: 0.15 s, and the rename below never outruns the data.
        code, said = account.run([binaries.initdb, "-D", account.path_of(draft), *_INITDB], cwd=draft)
        if code != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise StartUpError(f"PostgreSQL could not make a database in {self.root}: {complaint(said)}")
        draft.rename(self.pgdata)
        _sync(self.root)

    def let_in(self, account: Account) -> None:
        """Let this process's user in through the socket, by what the kernel says of the caller, and nobody else."""
        user = own_name().replace('"', '""')
        self._write("pg_hba.conf", f"local all {ROLE} peer map={ROLE}\n", account)
        self._write("pg_ident.conf", f'{ROLE} "{user}" {ROLE}\n', account)

    def write_proof(self, word: str, account: Account) -> None:
        """A word that only a PostgreSQL serving this very folder can read back to us (see `READ_PROOF`)."""
        self._write(_PROOF, word, account)

    def drop_stale_pid(self) -> None:
        """Forget the pid of a PostgreSQL that is gone. Call with `postgres.alive` locked.

        That number may be some other program's by now, which PostgreSQL would take for its predecessor and not start.
        """
        pid = self._recorded_pid()
        if pid is not None and self.is_served_by(pid):
            raise StartUpError(
                f"A PostgreSQL that Gyoza did not start (pid {pid}) runs on {self.pgdata}: stop it (kill -INT {pid})"
            )
        for stale in ("postmaster.pid", f"{SOCKET}.lock"):
            (self.pgdata / stale).unlink(missing_ok=True)

    def end_orphans(self) -> None:
        """End the sessions that outlived a killed postmaster: one may compute for hours, and none can start before.

        Nothing is lost by it. What they had not committed is gone with their postmaster.
        """
        pid = self._recorded_pid()
        if pid is not None and self.is_served_by(pid):
            return
        for process in psutil.process_iter():
            if self.is_served_by(process.pid):
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGQUIT)

    def _recorded_pid(self) -> int | None:
        try:
            return int((self.pgdata / "postmaster.pid").read_text().split("\n")[0])
        except (FileNotFoundError, ValueError):  # empty after a full disk
            return None

    def is_served_by(self, pid: int) -> bool:
        """Whether `pid` is a PostgreSQL process at work on this folder: it stays in its data for all its life."""
        try:
            process = psutil.Process(pid)
            return process.name() == "postgres" and self.pgdata.samefile(process.cwd())
        except (psutil.Error, OSError):
            return False

    def bound_log(self) -> None:
        """Keep the log under `LOG_BYTES`. PostgreSQL appends to the open file: it is emptied in place."""
        if self.log_bytes() > LOG_BYTES:
            shutil.copyfile(self.log, self.root / "postgres.log.1")
            os.truncate(self.log, 0)

    def log_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def said_since(self, log_bytes: int) -> str:
        """The line that says what went wrong, out of what the log has from there on."""
        with self.log.open("rb") as log:
            log.seek(log_bytes)
            return complaint(log.read(LOG_BYTES).decode(errors="replace"))

    def _write(self, name: str, text: str, account: Account) -> None:
        # By a new file and a rename: the account owns this folder, and must not lead root's pen elsewhere by a link.
        file, draft = tempfile.mkstemp(dir=self.pgdata)
        with os.fdopen(file, "w") as out:
            out.write(text)
            if account.other:
                os.fchown(file, account.uid, account.gid)
        Path(draft).replace(self.pgdata / name)


READ_PROOF = f"SELECT pg_read_file('{_PROOF}', true), split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"

_INITDB = (
    f"--username={ROLE}",
    "--auth=peer",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)


@contextmanager
def owned(root: Path) -> Generator[DataFolder]:
    """Own the data folder, made if it is missing, until the end of the context or of this process."""
    root = root.absolute()
    with disk_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(root / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(lock, root)
        yield DataFolder(root)
    finally:
        os.close(lock)


def _lock(lock: int, root: Path) -> None:
    with disk_errors(root):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).decode().strip() or "unknown"
            raise StartUpError(
                f"Data folder {root} is in use by another Gyoza server (pid {pid}). "
                "Stop it, or point this one elsewhere with GYOZA_DATA_DIR"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def complaint(said: str) -> str:
    """The line that says what went wrong, out of all that a program said: the first failure leads to the others."""
    lines = [line for line in said.splitlines() if line.strip() and not any(words in line for words in NOT_NOW)]
    telling = [line for line in lines if any(mark in line for mark in ("FATAL:", "PANIC:", "ERROR:", "error:"))]
    return (telling or lines[-1:] or ["it said nothing"])[0].strip()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
