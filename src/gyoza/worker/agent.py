"""A worker: it says that it lives, asks for work, hands each assignment to an attempt, and stops what it must."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import httpx
import msgspec

from gyoza.client import calls
from gyoza.client.errors import ResponseError
from gyoza.client.http import AsyncGyozaClient
from gyoza.models.resources import Resources
from gyoza.worker import attempt
from gyoza.worker.identity import Identity
from gyoza.worker.patience import patiently
from gyoza.worker.reports import Reports, Telling
from gyoza.worker.work import Assignment, Place, Work

CLAIM_WAIT_S = 20.0
MOST_AT_ONCE = 100
_PAUSE_S = 1.0
_LAST_WORDS_S = 2.0

Name = tuple[str, int]

_log = logging.getLogger(__name__)


@dataclass
class Task:
    work: Work
    running: asyncio.Task[None]


class Agent:
    """`run` ends when `leave` was called and everything is settled, or with the error that ends this worker."""

    def __init__(self, identity: Identity, resources: Resources, tags: Sequence[str], place: Place):
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
        self.registered = asyncio.Event()

    async def run(self) -> None:
        loops = [asyncio.create_task(loop) for loop in (self._beats(), self._claims(), self._reports.run())]
        left = asyncio.create_task(self._left())
        try:
            await asyncio.wait([*loops, left], return_when=asyncio.FIRST_COMPLETED)
            for task in (*loops, left):
                if task.done():
                    task.result()
            await self._say_goodbye()
        finally:
            await self._end([left, *(task.running for task in self._tasks.values()), *loops])

    def leave(self) -> None:
        """Take nothing new; `run` ends once what runs has ended."""
        self._leaving.set()
        self._beat_now.set()

    def stop_all(self) -> None:
        """What still runs is stopped, and goes back to the queue."""
        for task in self._tasks.values():
            task.work.stop("drained")

    @property
    def is_idle(self) -> bool:
        return not self._tasks

    async def _left(self) -> None:
        await self._leaving.wait()
        while self._tasks:
            await asyncio.wait([task.running for task in self._tasks.values()], timeout=_PAUSE_S)

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._client.remove_worker(self._identity.name)
        except (TimeoutError, httpx.HTTPError) as error:
            _log.info("the server was not told that this worker leaves: %s", error)

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _beats(self) -> None:
        """A heartbeat at the pace that the server sets, and at once when there is a reason."""
        while True:
            answer = await self._asked(lambda: self._client.register_worker(self._identity.name, self._said()))
            self._heartbeat_s = answer["heartbeat_s"]
            self.registered.set()
            self._stop(answer["stop"])
            self._beat_now.clear()
            try:
                await asyncio.wait_for(self._beat_now.wait(), self._heartbeat_s)
            except TimeoutError:
                continue

    def _said(self) -> dict[str, Any]:
        self._seq += 1
        resources = replace(self._resources, slots=0) if self._leaving.is_set() else self._resources
        return {
            "instance": self._identity.instance,
            "seq": self._seq,
            "host_id": self._identity.host_id,
            "resources": resources.to_dict(),
            "tags": list(self._tags),
            "engines": [self._place.engine.name],
            "version": version("gyoza"),
            "images": [],
            "holding": self._named(self._tasks),
        }

    async def _claims(self) -> None:
        await self.registered.wait()
        while True:
            answer = await self._asked(self._claim)
            fresh = [Assignment.from_json(raw) for raw in answer["assignments"]]
            took = [self._take(assignment) for assignment in fresh]
            stopped = self._stop(msgspec.json.decode(answer["stop"]))
            if not any(took) and not stopped:
                await asyncio.sleep(0.05)

    async def _claim(self) -> dict[str, Any]:
        known = {name: task for name, task in self._tasks.items() if not task.work.stopped.is_set()}
        body = {
            "instance": self._identity.instance,
            "known": self._named(known),
            "max": MOST_AT_ONCE,
            "wait_s": CLAIM_WAIT_S,
        }
        call = calls.claim(self._identity.name, body).read_by(lambda response: response.content)
        slices = msgspec.json.decode(await self._client.send(call), type=dict[str, msgspec.Raw])
        assignments = msgspec.json.decode(slices["assignments"], type=list[msgspec.Raw])
        return {"assignments": assignments, "stop": slices["stop"]}

    def _take(self, assignment: Assignment) -> bool:
        name = (assignment.lease.run_id, assignment.lease.attempt)
        if name in self._tasks:
            return False
        telling = Telling(self._reports, assignment.lease)
        if self._leaving.is_set():
            telling.tell(declined=True)
            return True
        work = Work(assignment, self._place, telling)
        self._tasks[name] = Task(work, asyncio.create_task(self._worked(name, work)))
        return True

    async def _worked(self, name: Name, work: Work) -> None:
        _log.info("%s: taken up", work.assignment.name)
        try:
            await attempt.run(work)
        finally:
            del self._tasks[name]
            _log.info("%s: settled", work.assignment.name)

    def _stop(self, stops: Sequence[dict[str, Any]]) -> bool:
        found = [self._tasks.get((stop["run_id"], stop["attempt"])) for stop in stops]
        for task in found:
            if task is not None:
                task.work.stop()
        return any(found)

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
