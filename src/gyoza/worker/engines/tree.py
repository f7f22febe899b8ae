"""The processes of one attempt, wherever they went: found by parent, session, process group and environment."""

import asyncio
import os
from collections.abc import Iterable, Mapping

import psutil

GONE = (psutil.NoSuchProcess, ProcessLookupError)


class Tree:
    """A program and everything it started.

    A process that is new since the last look belongs to the tree if it is the program itself or in its session or
    process group, if its parent belongs to it, or if its environment carries the attempt's marks: that finds children
    which made a session of their own after their parent was gone. Processes older than the program are strangers and
    never read. (A program that wipes its environment *and* leaves its session *and* loses its parent between two looks
    escapes; who must expect that runs ops in containers.)
    """

    def __init__(self, marks: Mapping[str, str]):
        self._marks = marks
        self._strangers = set(psutil.pids())
        self._members: dict[int, psutil.Process] = {}
        self._root = -1

    def grow_from(self, pid: int) -> None:
        """The program has started as `pid`, leader of its own session."""
        self._root = pid

    def look(self) -> list[psutil.Process]:
        """Those alive now; the dead whom nobody has waited for are not."""
        now = psutil.pids()
        self._strangers &= set(now)
        self._members = {pid: process for pid, process in self._members.items() if _alive(process)}
        while found := [pid for pid in now if self._is_new(pid) and self._belongs(pid)]:
            # Once more, because a child may come before its parent in `now`.
            self._members.update({pid: process for pid in found if (process := _process(pid)) and _alive(process)})
            self._strangers.update(pid for pid in found if pid not in self._members)
        self._strangers.update(pid for pid in now if pid not in self._members)
        return list(self._members.values())

    def _is_new(self, pid: int) -> bool:
        return pid not in self._strangers and pid not in self._members

    def _belongs(self, pid: int) -> bool:
        if pid == self._root:
            return True
        try:
            if self._root in (os.getsid(pid), os.getpgid(pid)):
                return True
            process = psutil.Process(pid)
            return process.ppid() in self._members or _carries(process, self._marks)
        except (psutil.Error, OSError):
            return False


def marked(marks: Mapping[str, str]) -> list[tuple[psutil.Process, dict[str, str]]]:
    """Every live process that carries these marks in its environment, with that environment; never this one."""
    found: list[tuple[psutil.Process, dict[str, str]]] = []
    for process in psutil.process_iter():
        env = _environ(process)
        if process.pid != os.getpid() and env and marks.items() <= env.items() and _alive(process):
            found.append((process, env))
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


async def kill_all(tree: Tree) -> None:
    """Until nothing of it is alive: what forks while it is killed is found at the next look."""
    pause = 0.002
    while alive := tree.look():
        kill(alive)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.5)


def ram(processes: Iterable[psutil.Process], limit: int) -> int:
    """Bytes of RAM that they hold together.

    Resident memory counts a page once for each process that shares it, so only where that is over `limit` the dearer
    question is asked, which divides shared pages among those who share them.
    """
    members = list(processes)
    resident = sum(_memory(process, proportional=False) for process in members)
    if resident <= limit or len(members) == 1:
        return resident
    return sum(_memory(process, proportional=True) for process in members)


def _memory(process: psutil.Process, proportional: bool) -> int:
    try:
        if not proportional:
            return process.memory_info().rss
        full = process.memory_full_info()
        return getattr(full, "pss", full.uss)
    except psutil.Error:
        return 0


def cpu_s(process: psutil.Process) -> float:
    """Seconds that it and the children it has waited for have computed; 0 once it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _carries(process: psutil.Process, marks: Mapping[str, str]) -> bool:
    return marks.items() <= _environ(process).items()


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
