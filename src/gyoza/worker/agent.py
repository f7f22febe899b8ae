"""A worker: it says that it lives, asks for work, hands each assignment to an attempt, and stops what it must."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from time import monotonic
from typing import Any

import httpx
import msgspec

from gyoza.client import calls
from gyoza.client.errors import ResponseError, not_gyoza
from gyoza.client.http import AsyncGyozaClient
from gyoza.models.resources import Resources
from gyoza.worker import attempt
from gyoza.worker.adoption import Left
from gyoza.worker.engines.cleanup import remove_folder, to_the_end
from gyoza.worker.gpus import Share
from gyoza.worker.identity import Identity
from gyoza.worker.patience import patiently
from gyoza.worker.pulse import TRY_S, Pulse
from gyoza.worker.reports import Reports, Telling
from gyoza.worker.spool import FILE, Spool
from gyoza.worker.sweep import sweeps
from gyoza.worker.work import LEAVING_GRACE_S, Assignment, Place, Unreadable, Work

CLAIM_WAIT_S = 20.0
MOST_AT_ONCE = 100
_PAUSE_S = 1.0
_LOOK_S = 0.05
_LAST_WORDS_S = 2.0

Name = tuple[str, int]
Ask = Callable[[Iterable[Share]], Awaitable[Resources]]
"""What this machine gives, beside what these attempts have of its GPUs; asked at every heartbeat."""

_log = logging.getLogger(__name__)


@dataclass
class Task:
    work: Work
    running: asyncio.Task[None]


class Agent:
    """`run` ends when `leave` was called and everything is settled, or with the error that ends this worker."""

    def __init__(self, identity: Identity, resources: Ask, tags: Sequence[str], place: Place):
        self._identity = identity
        self._resources = resources
        self._tags = tags
        self._place = place
        self._client: AsyncGyozaClient = place.client
        self._reports = Reports(place.client, identity.name, identity.instance)
        self._tasks: dict[Name, Task] = {}
        self._seq = 0
        self._heartbeat_s = 5.0
        self._beat_now = asyncio.Event()
        self._leaving = asyncio.Event()
        self._gone_at = float("inf")
        self.registered = asyncio.Event()
        self.pulse = Pulse()

    async def take_over(self, left: Iterable[Name]) -> None:
        """Be this worker from now on: an earlier process of it, should one live, is heard no more.

        The attempts that are `left` of it on this host count as held, and nothing new comes, until `run` begins.
        """
        await patiently(lambda: self._register(left, is_open=False))

    def adopt(self, left: Iterable[Left]) -> None:
        """Go on with what an earlier process of this worker did not bring to its end."""
        for each in left:
            self._begin(each.assignment, each.spool, attempt.run)

    def works_on(self, name: str) -> bool:
        """Whether an attempt of this name, `<run id>-<attempt>`, is held by this process."""
        run_id, _, number = name.rpartition("-")
        return number.isdecimal() and (run_id, int(number)) in self._tasks

    async def run(self) -> None:
        loops = self._beats(), self._claims(), sweeps(self._place, self.works_on)
        asking = [asyncio.create_task(loop) for loop in loops]
        telling = asyncio.create_task(self._reports.run())
        left = asyncio.create_task(self._left())
        try:
            await asyncio.wait([*asking, telling, left], return_when=asyncio.FIRST_COMPLETED)
            for task in (*asking, telling, left):
                if task.done():
                    task.result()
            await _ended(asking)
            await self._say_goodbye()
        finally:
            await to_the_end(_ended([left, *(task.running for task in self._tasks.values()), *asking, telling]))

    def leave(self) -> None:
        """Take nothing new; `run` ends once what runs has ended."""
        self._leaving.set()
        self._beat_now.set()

    def stop_all(self) -> None:
        """What still runs is stopped, and goes back to the queue; `run` ends soon, even if the server is away."""
        self._gone_at = asyncio.get_running_loop().time() + LEAVING_GRACE_S + _LAST_WORDS_S
        for task in self._tasks.values():
            task.work.stop("drained", "The worker was stopped before the run had ended", in_haste=True)

    @property
    def holds(self) -> int:
        """How many attempts."""
        return len(self._tasks)

    @property
    def is_idle(self) -> bool:
        return not self._tasks

    async def _left(self) -> None:
        """Until everything is settled and the server has heard of it, or there is no more time for that."""
        await self._leaving.wait()
        loop = asyncio.get_running_loop()
        while self._tasks and loop.time() < self._gone_at:
            await asyncio.wait([task.running for task in self._tasks.values()], timeout=_LOOK_S)

    async def _say_goodbye(self) -> None:
        """Not while something runs still: that is this worker's until its lease runs out."""
        if self._tasks:
            return
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._client.remove_worker(self._identity.name)
        except (TimeoutError, httpx.HTTPError) as error:
            _log.info("the server was not told that this worker leaves: %s", error)

    async def _beats(self) -> None:
        """A heartbeat at the pace that the server sets, and at once when there is a reason."""
        while True:
            self._beat_now.clear()
            answer = await self._asked(self._beat)
            self._heartbeat_s = answer["heartbeat_s"]
            self.registered.set()
            self._stop(answer["stop"])
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._beat_now.wait()

    async def _beat(self) -> dict[str, Any]:
        self.pulse.turn("the heartbeats", TRY_S)
        return await self._register(self._tasks, is_open=not self._leaving.is_set())

    async def _register(self, holding: Iterable[Name], *, is_open: bool) -> dict[str, Any]:
        said = await self._said(holding, is_open=is_open)
        asked_at = monotonic()
        answer = await self._client.register_worker(self._identity.name, said)
        self._place.contact.heard(asked_at, answer["lease_s"])
        return answer

    async def _said(self, holding: Iterable[Name], *, is_open: bool) -> dict[str, Any]:
        resources = await self._resources([task.work.share for task in self._tasks.values() if task.work.has_gpus])
        resources = resources if is_open else replace(resources, slots=0)
        self._seq += 1
        return {
            "instance": self._identity.instance,
            "seq": self._seq,
            "host_id": self._identity.host_id,
            "resources": resources.to_dict(),
            "tags": list(self._tags),
            "engines": [self._place.engine.name],
            "version": version("gyoza"),
            "images": list(self._place.engine.images()),
            "holding": self._named(holding),
        }

    async def _claims(self) -> None:
        await self.registered.wait()
        while True:
            answer = await self._asked(self._claim)
            took = [self._take(raw) for raw in answer["assignments"]]
            stopped = self._stop(msgspec.json.decode(answer["stop"]))
            if not any(took) and not stopped:
                await asyncio.sleep(_LOOK_S)

    async def _claim(self) -> dict[str, Any]:
        self.pulse.turn("asking for work", TRY_S)
        body = {
            "instance": self._identity.instance,
            "known": self._named(name for name, task in self._tasks.items() if not task.work.is_unwanted),
            "max": MOST_AT_ONCE,
            "wait_s": CLAIM_WAIT_S,
        }
        return await self._client.send(calls.claim(self._identity.name, body).read_by(_in_slices))

    def _take(self, raw: msgspec.Raw) -> bool:
        """Whether there is something new to do."""
        try:
            assignment = Assignment.from_json(raw)
        except Unreadable as error:
            Telling(self._reports, error.lease).tell(_unreadable(error), settled=True)
            return False
        if self.works_on(assignment.name):
            return False
        spool = Spool(self._place.attempts / assignment.name / FILE)
        spool.keep(assignment=raw)
        self._begin(assignment, spool, _declined if self._leaving.is_set() else attempt.run)
        return True

    def _begin(self, assignment: Assignment, spool: Spool, doing: Callable[[Work], Awaitable[None]]) -> None:
        work = Work(assignment, self._place, Telling(self._reports, assignment.lease, spool))
        name = (assignment.lease.run_id, assignment.lease.attempt)
        self._tasks[name] = Task(work, asyncio.create_task(self._worked(name, work, doing)))

    async def _worked(self, name: Name, work: Work, doing: Callable[[Work], Awaitable[None]]) -> None:
        """What is kept of it on disk goes when nothing of it has to be told any more, and not before."""
        _log.info("%s-%s: taken up", *name)
        try:
            await doing(work)
            work.spool.forget()
            await to_the_end(asyncio.to_thread(remove_folder, work.folder))
        except OSError as error:
            _log.warning("the folder of an attempt could not be removed: %s", error)
        finally:
            del self._tasks[name]
            _log.info("%s-%s: settled", *name)

    def _stop(self, stops: Sequence[dict[str, Any]]) -> bool:
        """Whether that was news for any of them."""
        found = [self._tasks.get((stop["run_id"], stop["attempt"])) for stop in stops]
        fresh = [task for task in found if task is not None and task.work.stop()]
        return bool(fresh)

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """An answer; where the server does not know this worker any more, once it does again."""
        while True:
            try:
                return await patiently(ask)
            except ResponseError as error:
                if error.code != "not_registered":
                    raise
                self._beat_now.set()
                await asyncio.sleep(_PAUSE_S)

    def _named(self, names: Iterable[Name]) -> list[dict[str, Any]]:
        return [{"run_id": run_id, "attempt": number} for run_id, number in names]


def _in_slices(response: httpx.Response) -> dict[str, Any]:
    """Assignments as they were received, each to be read by itself."""
    try:
        slices = msgspec.json.decode(response.content, type=dict[str, msgspec.Raw])
        assignments = msgspec.json.decode(slices["assignments"], type=list[msgspec.Raw])
        return {"assignments": assignments, "stop": slices["stop"]}
    except (msgspec.MsgspecError, KeyError) as error:
        raise not_gyoza(response) from error


def _unreadable(error: Unreadable) -> dict[str, Any]:
    """One assignment that cannot be read costs that attempt, never the worker."""
    message = f"This worker cannot read the assignment ({error}): bring it to the server's version"
    return {"type": "FAILED", "msg": message, "payload": {"error_message": message, "reason": "start_failed"}}


async def _declined(work: Work) -> None:
    await work.telling.tell(declined=True)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
