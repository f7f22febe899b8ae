"""Who runs PostgreSQL.

PostgreSQL refuses to run as root. An ordinary user runs it himself; root runs it under an account without rights: the
one that owns the data already there, else the first of `ACCOUNTS` that this system knows.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gyoza.models.errors import StartUpError

ACCOUNTS = ("gyoza", "postgres", "nobody")
ELSEWHERE = "or set GYOZA_DATABASE_URL to a PostgreSQL server of your own"

# Nothing of ours may bend PostgreSQL (PGPORT, LD_PRELOAD, locales that this system lacks).
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True)
class Account:
    """A system account. `other`: not the one that this process runs under."""

    name: str
    uid: int
    gid: int
    other: bool

    def spawn(
        self, command: Sequence[str], *, cwd: Path, output: int, keep: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start `command` in `cwd` under this account, both outputs into `output`; it inherits the files `keep`.

        It gets a session of its own: Ctrl-C in the terminal is for us, and we stop PostgreSQL in our own time. Raises
        OSError where this process may not become that account or the program cannot be executed.
        """
        return subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
            start_new_session=True,
            umask=0o077,
            pass_fds=keep,
            user=self.uid if self.other else None,
            group=self.gid if self.other else None,
            extra_groups=[] if self.other else None,
        )

    def run(self, command: Sequence[str], *, cwd: Path) -> tuple[int, str]:
        """Run `command` to its end: exit code and all it said. Raises OSError as `spawn` does."""
        with self.spawn(command, cwd=cwd, output=subprocess.PIPE) as process:
            said, _ = process.communicate()
        return process.returncode, said.decode(errors="replace").strip()

    def path_of(self, folder: Path) -> str:
        """How a process of this account that was started in `folder` names it.

        Folders above may be closed to the account (`/root`, a temporary folder of root) and we open nobody's folders:
        it is started inside, and reaches the folder through the link that leads there without passing those above.
        """
        inside = Path("/proc/self/cwd")
        return str(inside) if self.other and inside.exists() else str(folder)


def own_name() -> str:
    """The name of the user this process runs as, by which PostgreSQL lets it in."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise StartUpError(
            f"User id {os.geteuid()} has no name on this system, and PostgreSQL needs one: "
            f"add it to /etc/passwd, {ELSEWHERE}"
        ) from None


def account_for(pgdata: Path) -> Account:
    """Who runs the PostgreSQL of `pgdata`, which may not exist yet."""
    owner = _owner_of(pgdata) if pgdata.exists() else None
    if os.geteuid() != 0:
        return _this_user(pgdata, owner)
    if owner is None:
        return _first_known()
    if owner.uid == 0:
        raise StartUpError(
            f"The database in {pgdata} belongs to root, and PostgreSQL refuses to run as root: "
            f"give it to an account without rights (chown -R {_first_known().name} '{pgdata}')"
        )
    return owner


def _this_user(pgdata: Path, owner: Account | None) -> Account:
    if owner is not None and owner.uid != os.geteuid():
        raise StartUpError(
            f"The database in {pgdata} belongs to user '{owner.name}', and this is '{own_name()}': start Gyoza as "
            f"'{owner.name}', or point this server elsewhere with GYOZA_DATA_DIR"
        )
    return Account(own_name(), os.geteuid(), os.getegid(), other=False)


def _owner_of(pgdata: Path) -> Account:
    found = pgdata.stat()
    try:
        name = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        name = str(found.st_uid)
    return Account(name, found.st_uid, found.st_gid, other=found.st_uid != os.geteuid())


def _first_known() -> Account:
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    for name in ACCOUNTS:
        if name in known:
            return Account(name, known[name].pw_uid, known[name].pw_gid, other=True)
    raise StartUpError(
        f"PostgreSQL refuses to run as root, and this system has none of the accounts {', '.join(ACCOUNTS)}: "
        f"make one (useradd --system gyoza), start Gyoza as an ordinary user, {ELSEWHERE}"
    )
