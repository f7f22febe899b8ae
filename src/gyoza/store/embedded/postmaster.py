"""One running PostgreSQL: started here, or taken over from a server that was killed."""

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress

import psutil

from gyoza.store.embedded.account import Account
from gyoza.store.embedded.binaries import Binaries
from gyoza.store.embedded.folder import DataFolder

# How long each way of stopping may take: fast (sessions are cut, data written out), immediate (the next start
# recovers), and the last resort, after which PostgreSQL's other processes end by themselves.
STOPS = ((signal.SIGINT, 4.0), (signal.SIGQUIT, 0.6), (signal.SIGKILL, 0.2))

SETTINGS = {
    "listen_addresses": "",  # no TCP
    "unix_socket_directories": ".",  # in the data folder, which is closed to others
    "unix_socket_permissions": "0700",
    "cluster_name": "gyoza",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "max_connections": "100",
    "shared_buffers": "256MB",
    # Small statements on few cores: nothing for parallel work, neither processes nor /dev/shm (tiny in containers).
    "io_method": "sync",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_logical_replication_workers": "0",
}


class Postmaster:
    """The process that all others of a PostgreSQL descend from; `child` where we are its parent."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None):
        self.pid = pid
        self._process = psutil.Process(pid)  # knows when it was born: a re-used pid is not taken for it
        self._child = child

    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    async def stop(self) -> None:
        """End it within 5 s, in order if it can be."""
        for number, patience_s in STOPS:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                self._process.send_signal(number)
            if await self._gone_within(patience_s):
                return

    async def _gone_within(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True


def launch(folder: DataFolder, binaries: Binaries, account: Account, alive: int) -> Postmaster:
    """Start PostgreSQL; it inherits `alive`, the locked file that says so for as long as any process of it lives."""
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        command = [binaries.postgres, "-D", account.path_of(folder.pgdata), *settings]
        child = account.spawn(command, cwd=folder.pgdata, output=log, keep=[alive])
    finally:
        os.close(log)
    return Postmaster(child.pid, child)
