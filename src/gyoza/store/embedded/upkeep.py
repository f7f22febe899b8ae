"""Keeping the PostgreSQL of one data folder up: take over or start, heal, stop."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import psycopg

from gyoza.models.errors import StartUpError
from gyoza.store.embedded.account import Account
from gyoza.store.embedded.binaries import Binaries
from gyoza.store.embedded.folder import NOT_NOW, READ_PROOF, DataFolder
from gyoza.store.embedded.postmaster import Postmaster, launch

WATCH_S = 0.25
RESTART_S = 2.0
CONNECT_S = 5
FIRST_WORD_S = 2.0
NEXT_WORD_S = 10.0


@dataclass
class Upkeep:
    """`say` is told of what takes long and of what went wrong; `postmaster` is the one that runs, once it does."""

    folder: DataFolder
    account: Account
    binaries: Binaries
    url: str
    say: Callable[[str], None]
    postmaster: Postmaster | None = None
    _word: str = ""
    _refusal: str = ""
    _log_bytes: int = 0

    async def start(self) -> None:
        """Return once PostgreSQL answers: one that is still there, else a new one when the old one is wholly gone."""
        self._word, self._refusal = secrets.token_hex(), ""
        self.folder.write_proof(self._word, self.account)
        self.folder.let_in(self.account)
        wait = _Wait(self.say)
        while (alive := self.folder.when_nothing_lives()) is None:
            if await self._took_over():
                return
            self.folder.end_orphans()
            await wait.a_moment(f"Waiting for the last PostgreSQL of {self.folder.root} to answer or end{self._why()}")
        self._launch(alive)
        while await self._answering() is None:
            self._check_that_it_lives()
            await wait.a_moment(f"Waiting for PostgreSQL to start{self._why()}")

    async def heal_for_ever(self) -> None:
        """Start PostgreSQL again whenever it has ended, and keep its log in bounds."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                self.folder.bound_log()
                if self.postmaster is None or not self.postmaster.alive():
                    self.say(f"PostgreSQL has ended: starting it again ({self.folder.log} may say why)")
                    await self.start()
                    self.say("PostgreSQL answers again")
            except (StartUpError, OSError, psycopg.Error) as error:
                self.say(f"PostgreSQL could not be started again, trying on: {error}")
                await asyncio.sleep(RESTART_S)

    async def stop(self) -> None:
        if self.postmaster is not None:
            await self.postmaster.stop()

    async def _took_over(self) -> bool:
        """Whether the PostgreSQL of a server that was killed is ours now."""
        pid = await self._answering()
        if pid is None:
            return False
        if not self.folder.is_served_by(pid):
            self._refusal = "it answers, but is no process of this system (a container shares the folder?)"
            return False
        try:
            self.postmaster = Postmaster(pid)
        except psutil.NoSuchProcess:  # it ended this very moment
            return False
        self.say(f"Took over the PostgreSQL (pid {pid}) of a server that was killed")
        return True

    def _launch(self, alive: int) -> None:
        try:
            self._log_bytes = self.folder.log_bytes()
            self.folder.drop_stale_pid()
            self.postmaster = launch(self.folder, self.binaries, self.account, alive)
        finally:
            os.close(alive)

    async def _answering(self) -> int | None:
        """The pid of the PostgreSQL that answers at our URL and has proved to serve our folder; None: not now."""
        try:
            async with await psycopg.AsyncConnection.connect(self.url, connect_timeout=CONNECT_S) as connection:
                row = await (await connection.execute(READ_PROOF)).fetchone()
        except psycopg.OperationalError as error:
            self._refusal = " ".join(str(error).split())
            if "FATAL:" in self._refusal and not any(words in self._refusal for words in NOT_NOW):
                raise StartUpError(f"The PostgreSQL of {self.folder.root} lets nobody in: {self._refusal}") from error
            return None
        if row is None or row[0] != self._word:
            raise StartUpError(f"The PostgreSQL that answers in {self.folder.pgdata} serves another folder: stop it")
        return int(row[1])

    def _check_that_it_lives(self) -> None:
        if self.postmaster is None or not self.postmaster.alive():
            said = self.folder.said_since(self._log_bytes)
            raise StartUpError(f"PostgreSQL ended while it started: {said} (more in {self.folder.log})")

    def _why(self) -> str:
        """What PostgreSQL says itself, where it says something."""
        said = self._refusal.rpartition("FATAL:")[2].strip()
        return f": {said}" if said else ""


class _Wait:
    """Waits in small steps, and tells what for when it takes long."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._since = time.monotonic()
        self._next_word_s = FIRST_WORD_S

    async def a_moment(self, what_for: str) -> None:
        waited = time.monotonic() - self._since
        if waited >= self._next_word_s:
            self._say(f"{what_for} ({waited:.0f} s)")
            self._next_word_s = waited + NEXT_WORD_S
        await asyncio.sleep(min(0.1, 0.01 + waited / 10))
