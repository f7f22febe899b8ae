"""Those who talk to the server in these tests: people who submit runs, and workers that do what a test says."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Json = dict[str, Any]


async def submit(api: httpx.AsyncClient, image: str = "alpine", **body: Any) -> Json:
    """A new ad-hoc run."""
    return told(await api.post("/runs", json={"image": image, **body}), 201)


async def get(api: httpx.AsyncClient, run: Json) -> Json:
    return told(await api.get(f"/runs/{run['id']}"))


async def say(api: httpx.AsyncClient, run: Json, type: str, msg: Any = "", **more: Any) -> httpx.Response:
    """An event from outside."""
    return await api.post(f"/runs/{run['id']}/events", json={"type": type, "msg": msg, **more})


async def history(api: httpx.AsyncClient, run: Json) -> list[Json]:
    return told(await api.get(f"/runs/{run['id']}/events"))["events"]


async def attempts(api: httpx.AsyncClient, run: Json) -> list[Json]:
    return told(await api.get(f"/runs/{run['id']}/attempts"))


async def in_state(api: httpx.AsyncClient, state: str, **body: Any) -> Json:
    """A run without a lease that is in this state by events from outside."""
    ways = {
        "PENDING": (),
        "RUNNING": ("STARTED",),
        "COMPLETED": ("STARTED", "COMPLETED"),
        "FAILED": ("STARTED", "FAILED"),
        "CANCELLED": ("CANCELLED",),
    }
    run = await submit(api, **body)
    for type in ways[state]:
        run = told(await say(api, run, type))
    assert run["state"] == state
    return run


def told(answer: httpx.Response, status: int = 200) -> Any:
    """The JSON of an answer that must have this status."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
    return answer.json()


def refused(answer: httpx.Response, status: int, code: str | None = None) -> Json:
    """The problem document of a refusal, after a look at its form."""
    problem = told(answer, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) >= {"type", "title", "status", "detail", "code"}
    assert problem["status"] == status
    assert isinstance(problem["detail"], str) and problem["detail"]
    assert code is None or problem["code"] == code, problem
    return problem


def pointers(answer: httpx.Response) -> set[str]:
    """The places that a 422 names."""
    return {fault["pointer"] for fault in refused(answer, 422)["errors"]}


async def until(look: Callable[[], Awaitable[Any]], *, within_s: float = 15) -> Any:
    """What `look` gives as soon as that is true."""
    async with asyncio.timeout(within_s):
        while not (found := await look()):
            await asyncio.sleep(0.02)
        return found


_instances = itertools.count(1)


@dataclass
class Worker:
    """A worker process, seen from the wire: it says what a test wants it to say."""

    api: httpx.AsyncClient
    name: str
    host: str = "host-1"
    instance: str = field(default_factory=lambda: f"instance-{next(_instances)}")
    cpu: float = 4
    ram_mb: int = 8192
    slots: int = 8
    gpus: list[Json] = field(default_factory=list)
    beats: int = 0
    seqs: dict[tuple[str, int], int] = field(default_factory=dict)

    async def beat(self, *holding: Json, **changes: Any) -> httpx.Response:
        self.beats += 1
        body = {
            "instance": self.instance,
            "seq": self.beats,
            "host_id": self.host,
            "resources": {"cpu": self.cpu, "ram_mb": self.ram_mb, "slots": self.slots, "gpus": self.gpus},
            "engines": ["docker", "process"],
            "holding": [named(each) for each in holding],
        }
        return await self.api.put(f"/workers/{self.name}", json={**body, **changes})

    async def claim(self, *known: Json, most: int = 10, wait_s: float = 0) -> httpx.Response:
        body = {"instance": self.instance, "known": [named(each) for each in known], "max": most, "wait_s": wait_s}
        return await self.api.post(f"/workers/{self.name}/claim", json=body)

    async def registered(self, **changes: Any) -> "Worker":
        told(await self.beat(**changes))
        return self

    async def assignment(self, *known: Json) -> Json:
        """The next assignment; waits for it."""
        (assigned,) = told(await self.claim(*known, most=1, wait_s=20))["assignments"]
        return assigned

    def report_of(self, held: Json, *events: Json, **more: Any) -> Json:
        """One report on what is held; its number is one higher than that of the last."""
        place = (held["run_id"], held["attempt"])
        self.seqs[place] = self.seqs.get(place, 0) + 1
        report = {**named(held), "lease_token": held["lease_token"], "seq": self.seqs[place], "events": list(events)}
        return {**report, **more}

    async def send(self, *reports: Json) -> httpx.Response:
        return await self.api.post(
            f"/workers/{self.name}/reports", json={"instance": self.instance, "reports": list(reports)}
        )

    async def report(self, held: Json, *events: Json, **more: Any) -> Json:
        """The result of one report."""
        (result,) = told(await self.send(self.report_of(held, *events, **more)))["results"]
        return result

    async def log(self, held: Json, data: bytes, offset: int, **headers: str) -> httpx.Response:
        """Bytes of an attempt's log."""
        path = f"/runs/{held['run_id']}/attempts/{held['attempt']}/logs"
        return await self.api.put(
            path, params={"offset": offset}, content=data, headers={"Gyoza-Lease": held["lease_token"], **headers}
        )


def named(held: Json) -> Json:
    return {"run_id": held["run_id"], "attempt": held["attempt"]}


def event(type: str, msg: Any = "", **payload: Any) -> Json:
    return {"type": type, "msg": msg, "payload": payload or None}


async def a_key(api: httpx.AsyncClient, name: str = "ci", **body: Any) -> Json:
    """A new key, with its text in `key`."""
    return told(await api.post("/keys", json={"name": name, **body}), 201)


def by(key: Json | str) -> dict[str, str]:
    """The headers of a request that carries this key."""
    return {"X-API-Key": key if isinstance(key, str) else key["key"]}
