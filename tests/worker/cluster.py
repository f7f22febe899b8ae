"""A whole cluster in this process: a real server, and a real worker whose ops are shell or Python one-liners."""

import asyncio
import io
import itertools
import json
import tarfile
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from gyoza.client.http import AsyncGyozaClient
from gyoza.models.resources import Resources
from gyoza.server.app import create_app
from gyoza.server.context import Context
from gyoza.worker import spool
from gyoza.worker.adoption import Left
from gyoza.worker.agent import Agent
from gyoza.worker.engines import Engine, Owner
from gyoza.worker.engines.process import Process
from gyoza.worker.engines.tree import marked
from gyoza.worker.gpus import Gpus, Share
from gyoza.worker.identity import Identity
from gyoza.worker.vault import Vault
from gyoza.worker.work import Place

KEY = "a-key-for-tests"
URL = "http://localhost:1"
DEADLINE_S = 20
RESOURCES = Resources(cpu_m=64_000, ram_mb=64_000, slots=64)
ENTRY = ("sh", "-c", 'eval "$PROGRAM"')
OVER = ("COMPLETED", "FAILED", "CANCELLED")

Object = dict[str, Any]
_count = itertools.count(1)


def _archive() -> bytes:
    """A bundle whose program is the shell text in PROGRAM."""
    data = io.BytesIO()
    manifest = {"format": 1, "entry": list(ENTRY), "python": None, "base_image": None}
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        entry = tarfile.TarInfo("bundle.json")
        text = json.dumps(manifest).encode()
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return data.getvalue()


ARCHIVE = _archive()


class Line(httpx.AsyncBaseTransport):
    """A worker's line to its server: remembers what was asked, and can be cut or held up."""

    def __init__(self, inner: httpx.AsyncBaseTransport):
        self._inner = inner
        self.asked: list[tuple[str, str, bytes]] = []
        self.is_cut = False
        self.instead: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        """What something between the two answers in the server's place."""
        self.hold: Callable[[httpx.Request], bool] = lambda request: False
        self.held = asyncio.Event()
        self.go_on = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path, await request.aread()))
        if self.hold(request):
            self.held.set()
            await self.go_on.wait()
        if self.is_cut:
            raise httpx.ConnectError("the line is cut", request=request)
        if (answer := self.instead(request)) is not None:
            return answer
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    @property
    def reports(self) -> list[list[Object]]:
        """What was reported, by request."""
        return [json.loads(body)["reports"] for _, path, body in self.asked if path.endswith("/reports")]


class Cluster:
    """A worker (`agent`) and the server's other client (`user`)."""

    def __init__(
        self, user: AsyncGyozaClient, identity: Identity, place: Place, owner: Owner, left: Sequence[Left] = ()
    ):
        self.user, self.identity, self.place, self.owner = user, identity, place, owner
        self.agent = Agent(identity, self._resources, (), place)
        self.agent.adopt(left)
        self.running = asyncio.create_task(self.agent.run())

    async def _resources(self, shares: Iterable[Share]) -> Resources:
        return replace(RESOURCES, gpus=await self.place.gpus.offered(shares))

    async def submit(self, program: str = "", inputs: Mapping[str, Any] | None = None, **definition: Any) -> str:
        """Deploy the shell text as an op and ask for a run of it: its id."""
        name = f"op-{next(_count)}"
        uploaded = await self.user.upload_file(io.BytesIO(ARCHIVE), name="bundle.tar.gz")
        digest = f"sha256:{sha256(ARCHIVE).hexdigest()}"
        bundle = {"uri": uploaded["uri"], "digest": digest, "size": len(ARCHIVE), "entry": list(ENTRY)}
        bundle |= definition.pop("bundle", {})
        env = {"PROGRAM": program, **definition.pop("env", {})}
        execution = {"env": env, **definition.pop("execution", {})}
        specs = {"input_specs": {key: {"type": "any"} for key in inputs or {}}}
        said = {**specs, "constraints": {"cpu": 0.1, "ram_mb": 256}, **definition}
        await self.user.upsert_definition({"id": name, "bundle": bundle, "execution": execution, **said})
        return (await self.user.create_run_from_definition(name, inputs or {}))["id"]

    async def run(self, program: str = "", inputs: Mapping[str, Any] | None = None, **definition: Any) -> Object:
        return await self.ended(await self.submit(program, inputs, **definition))

    async def python(self, program: str, inputs: Mapping[str, Any] | None = None, **definition: Any) -> Object:
        """The same for a Python text, in which `io` is the op's folder."""
        head = "import json, os, pathlib, sys, time; io = pathlib.Path(os.environ['GYOZA_IO_DIR'])\n"
        return await self.run('exec python3 -S -c "$PYTHON"', inputs, env={"PYTHON": head + program}, **definition)

    async def ended(self, run_id: str) -> Object:
        """The run, when it is over and all its attempts are settled."""
        await self.until(lambda: self._settled(run_id), f"run {run_id} to end")
        return await self.user.get_run(run_id)

    async def _settled(self, run_id: str) -> bool:
        if (await self.user.get_run(run_id))["state"] not in OVER:
            return False
        return all(attempt["settled_at"] for attempt in await self.user.get_attempts(run_id))

    async def state(self, run_id: str, state: str) -> None:
        async def reached() -> bool:
            return (await self.user.get_run(run_id))["state"] == state

        await self.until(reached, f"run {run_id} to be {state}")

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for `condition`, plain or awaitable; the agent must live on meanwhile, or have been told to end."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    met = condition()
                    if met if isinstance(met, bool) else await met:
                        return
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise AssertionError(f"waited too long for {what}") from error

    async def events(self, run_id: str) -> list[Object]:
        found: list[Object] = []
        while True:
            page = await self.user.get_events(run_id, after=found[-1]["id"] if found else None)
            found += page["events"]
            if not page["has_more"]:
                return found

    async def cancelled(self, run_id: str) -> Object:
        await self.user.cancel_run(run_id)
        return await self.ended(run_id)

    async def attempts(self, run_id: str) -> list[tuple[str, str | None]]:
        """State and reason of each."""
        return [(attempt["state"], attempt["reason"]) for attempt in await self.user.get_attempts(run_id)]

    async def told(self, run_id: str) -> list[tuple[str, Any]]:
        """Type and msg of its events, without those of the server."""
        events = await self.events(run_id)
        return [(event["type"], event["msg"]) for event in events if event["type"] != "ASSIGNED"]

    @property
    def leftovers(self) -> list[object]:
        """What there should be none of once a worker is idle; what it could not tell it keeps, for its next process."""
        kept = [path for path in self.place.folder.glob("attempts/*/*") if path.name != spool.FILE]
        programs = marked({"GYOZA_OWNER": self.owner.mark})
        return [*kept, *self.place.folder.glob("runs/*/*"), *(process.pid for process, _ in programs)]

    def keep_secret(self, name: str, value: str) -> None:
        """Put a secret where this worker's owner would."""
        path = self.place.folder / "secrets" / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(value)

    async def leave(self) -> None:
        self.agent.leave()
        self.agent.stop_all()
        await self.running


@asynccontextmanager
async def working(
    line: httpx.AsyncBaseTransport | None,
    user: AsyncGyozaClient,
    folder: Path,
    *,
    url: str = URL,
    client: type[AsyncGyozaClient] = AsyncGyozaClient,
    engine: Callable[[Owner, Path], Engine] = Process,
    name: str = "one",
    host: str = "",
    gpus: Gpus | None = None,
    left: Sequence[Left] = (),
) -> AsyncGenerator[Cluster]:
    """A worker; afterwards it is gone, and nothing of it is left: no process, no folder, no task."""
    identity = Identity(name, host or f"host of {folder}", uuid4().hex)
    owner = Owner(uuid4().hex, identity.host_id, name)
    others = asyncio.all_tasks()
    async with client(url, KEY, transport=line) as connection:
        place = Place(name, folder, engine(owner, folder), connection, gpus or Gpus(), vault=Vault(folder / "secrets"))
        cluster = Cluster(user, identity, place, owner, left)
        registered = asyncio.create_task(cluster.agent.registered.wait())
        await asyncio.wait({registered, cluster.running}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        registered.cancel()
        try:
            yield cluster
        finally:
            if not cluster.running.done():
                await cluster.leave()
            await cluster.place.engine.close()
    assert cluster.leftovers == []
    assert tasks_of_workers(asyncio.all_tasks() - others) == []


def tasks_of_workers(tasks: set[asyncio.Task[Any]]) -> list[str]:
    """Those whose code is a worker's."""
    codes = [getattr(task.get_coro(), "cr_code", None) for task in tasks if not task.done()]
    return [
        f"{code.co_filename}: {code.co_qualname}" for code in codes if code and "/gyoza/worker/" in code.co_filename
    ]


def line_to(server: Context) -> Line:
    return Line(httpx.ASGITransport(create_app(server, KEY), raise_app_exceptions=False))
