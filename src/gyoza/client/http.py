"""The calls with a connection: `GyozaClient` waits, `AsyncGyozaClient` is awaited."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import httpx

from gyoza.client import calls, transfer
from gyoza.client.address import Address, resolve
from gyoza.client.call import Call, Object
from gyoza.client.errors import GyozaUnreachable, RunCancelled, RunFailed, ServerFailed, unreachable
from gyoza.client.following import EventFollowing, Following, LogFollowing, Lost, Waiting
from gyoza.client.methods import awaited, waiting
from gyoza.models.lifecycle import OpRunState

T = TypeVar("T")

STORED_SHA256 = "X-Gyoza-Sha256"
"""The header by which a server names what it kept: hexadecimal."""
# Below the 5 s after which servers commonly close an idle connection: a request must not meet its closing.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=4.0)


class GyozaClient:
    """A connection to one server. Every method of the API returns decoded JSON and raises `gyoza.client` errors.

    `base_url` and `api_key` default to GYOZA_SERVER_URL and GYOZA_API_KEY; a server on this host lends its own key.
    `timeout` is in seconds, for each step of a request. Threads may share one client.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = 30.0,
        *,
        transport: httpx.BaseTransport | None = None,
    ):
        self.address = resolve(base_url, api_key)
        self.timeout = timeout
        self._http = httpx.Client(**_settings(self.address), transport=transport)

    def send(self, call: Call[T]) -> T:
        with _heard(self.address, self.timeout):
            response = self._http.request(**_request(call, self.timeout))
        return call.read(response)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "GyozaClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    upsert_definition = waiting(calls.upsert_definition)
    get_definition = waiting(calls.get_definition)
    list_definitions = waiting(calls.list_definitions)
    get_revisions = waiting(calls.get_revisions)
    disable_definition = waiting(calls.disable_definition)
    enable_definition = waiting(calls.enable_definition)
    delete_definition = waiting(calls.delete_definition)

    create_run = waiting(calls.create_run)
    create_run_from_definition = waiting(calls.create_run_from_definition)
    create_runs = waiting(calls.create_runs)
    replay_run = waiting(calls.replay_run)
    get_run = waiting(calls.get_run)
    list_runs = waiting(calls.list_runs)
    update_run = waiting(calls.update_run)
    cancel_run = waiting(calls.cancel_run)
    retry_run = waiting(calls.retry_run)
    cancel_runs = waiting(calls.cancel_runs)
    retry_runs = waiting(calls.retry_runs)
    get_events = waiting(calls.get_events)
    add_event = waiting(calls.add_event)
    get_attempts = waiting(calls.get_attempts)
    get_logs = waiting(calls.get_logs)

    delete_file = waiting(calls.delete_file)

    create_key = waiting(calls.create_key)
    list_keys = waiting(calls.list_keys)
    revoke_key = waiting(calls.revoke_key)

    list_workers = waiting(calls.list_workers)
    get_worker = waiting(calls.get_worker)
    drain_worker = waiting(calls.drain_worker)
    resume_worker = waiting(calls.resume_worker)
    remove_worker = waiting(calls.remove_worker)

    def run(self, name: str, /, **inputs: Any) -> Object:
        """Run the op `name` and wait; its outputs. Raises `RunFailed` or `RunCancelled` where there are none."""
        run = self.create_run_from_definition(name, inputs)
        return _outputs(run if _is_over(run) else self.wait(run["id"]))

    def wait(self, run_id: str, timeout_s: float | None = None) -> Object:
        """The run once it is over, or as it is after `timeout_s`. A server may be away for half a minute."""
        waiting = Waiting(run_id, timeout_s)
        while not waiting.ended:
            time.sleep(waiting.pause_s)
            try:
                waiting.answered(self.send(waiting.call()))
            except (GyozaUnreachable, ServerFailed) as error:
                waiting.lose(error)
        return waiting.run

    def watch(self, run_id: str, after: int | None = None, *, lost: Lost | None = None) -> Iterator[Object]:
        """The run's events (with a number above `after`) as they come, each once, until the run is over.

        `state` in each is the run's state after it. A connection that breaks is made anew where it broke off; `lost` is
        told of that. A server that stays away raises `GyozaUnreachable`.
        """
        return self._follow(EventFollowing(calls.stream_run(run_id, after), "id", after, lost))

    def watch_all(
        self,
        *,
        op_definition: str | None = None,
        types: Sequence[str] = (),
        tags: Sequence[str] = (),
        after: int | None = None,
        lost: Lost | None = None,
    ) -> Iterator[Object]:
        """The events of all runs as they come, in one order, for as long as they are taken: see `watch`.

        Where they are given: of runs of `op_definition`, of one of `types`, of runs with all `tags`. Each event has its
        position `pos` and its `run_id`; `after` is a position to go on from, 0 for all that is kept.
        """
        stream = calls.stream_all(op_definition, types, tags, after)
        return self._follow(EventFollowing(stream, "pos", after, lost))

    def upload_file(self, source: transfer.Source, *, name: str | None = None, media_type: str | None = None) -> Object:
        """Store a file, by its path or as an open binary stream: `{id, uri, name, size, sha256, media_type}`."""
        with transfer.leaving(source, name, media_type) as upload:
            return self.send(upload.call(iter(upload.chunk, b"")))

    def download_file(self, file: str, path: str | os.PathLike[str], *, sha256: str | None = None) -> Path:
        """Store a file's bytes under `path`; `file` is an id or a `gyoza://files/<id>` URI.

        `path` changes only when everything has arrived and fits `sha256`: the given one, or what the server names.
        """
        target = Path(path)
        with (
            self._streamed(calls.download_file(file)) as response,
            transfer.arriving(target, sha256 or response.headers.get(STORED_SHA256)) as take,
        ):
            for data in response.iter_bytes(transfer.CHUNK):
                take(data)
        return target

    def follow_logs(self, run_id: str, attempt: int | None = None, offset: int = 0) -> Iterator[bytes]:
        """What an attempt (by default the current one) wrote and writes, until nothing comes any more.

        A connection that breaks is made anew where it broke off. A server that stays away raises `GyozaUnreachable`.
        """
        return self._follow(LogFollowing(run_id, attempt, offset))

    def _follow(self, following: Following[T]) -> Iterator[T]:
        while not following.ended:
            time.sleep(following.pause_s)
            try:
                with self._streamed(following.call()) as response:
                    following.begin(response)
                    for data in response.iter_bytes():
                        yield from following.took(data)
                following.finish()
            except (GyozaUnreachable, ServerFailed) as error:
                following.lose(error)

    @contextmanager
    def _streamed(self, call: Call[None]) -> Generator[httpx.Response]:
        """An answer that is no refusal, its body to be read."""
        with _heard(self.address, self.timeout), self._http.stream(**_request(call, self.timeout)) as response:
            if not response.is_success:
                response.read()
            call.read(response)
            yield response


class AsyncGyozaClient:
    """`GyozaClient` for asyncio: the same methods, awaited; and the calls by which a worker reaches its server."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = 30.0,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ):
        self.address = resolve(base_url, api_key)
        self.timeout = timeout
        self._http = httpx.AsyncClient(**_settings(self.address), transport=transport)

    async def send(self, call: Call[T]) -> T:
        with _heard(self.address, self.timeout):
            response = await self._http.request(**_request(call, self.timeout))
        return call.read(response)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncGyozaClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    upsert_definition = awaited(calls.upsert_definition)
    get_definition = awaited(calls.get_definition)
    list_definitions = awaited(calls.list_definitions)
    get_revisions = awaited(calls.get_revisions)
    disable_definition = awaited(calls.disable_definition)
    enable_definition = awaited(calls.enable_definition)
    delete_definition = awaited(calls.delete_definition)

    create_run = awaited(calls.create_run)
    create_run_from_definition = awaited(calls.create_run_from_definition)
    create_runs = awaited(calls.create_runs)
    replay_run = awaited(calls.replay_run)
    get_run = awaited(calls.get_run)
    list_runs = awaited(calls.list_runs)
    update_run = awaited(calls.update_run)
    cancel_run = awaited(calls.cancel_run)
    retry_run = awaited(calls.retry_run)
    cancel_runs = awaited(calls.cancel_runs)
    retry_runs = awaited(calls.retry_runs)
    get_events = awaited(calls.get_events)
    add_event = awaited(calls.add_event)
    get_attempts = awaited(calls.get_attempts)
    get_logs = awaited(calls.get_logs)

    delete_file = awaited(calls.delete_file)

    create_key = awaited(calls.create_key)
    list_keys = awaited(calls.list_keys)
    revoke_key = awaited(calls.revoke_key)

    list_workers = awaited(calls.list_workers)
    get_worker = awaited(calls.get_worker)
    drain_worker = awaited(calls.drain_worker)
    resume_worker = awaited(calls.resume_worker)
    remove_worker = awaited(calls.remove_worker)

    register_worker = awaited(calls.register_worker)
    claim = awaited(calls.claim)
    report = awaited(calls.report)
    put_logs = awaited(calls.put_logs)

    async def run(self, name: str, /, **inputs: Any) -> Object:
        """As `GyozaClient.run`."""
        run = await self.create_run_from_definition(name, inputs)
        return _outputs(run if _is_over(run) else await self.wait(run["id"]))

    async def wait(self, run_id: str, timeout_s: float | None = None) -> Object:
        """As `GyozaClient.wait`."""
        waiting = Waiting(run_id, timeout_s)
        while not waiting.ended:
            await asyncio.sleep(waiting.pause_s)
            try:
                waiting.answered(await self.send(waiting.call()))
            except (GyozaUnreachable, ServerFailed) as error:
                waiting.lose(error)
        return waiting.run

    def watch(self, run_id: str, after: int | None = None, *, lost: Lost | None = None) -> AsyncGenerator[Object]:
        """As `GyozaClient.watch`."""
        return self._follow(EventFollowing(calls.stream_run(run_id, after), "id", after, lost))

    def watch_all(
        self,
        *,
        op_definition: str | None = None,
        types: Sequence[str] = (),
        tags: Sequence[str] = (),
        after: int | None = None,
        lost: Lost | None = None,
    ) -> AsyncGenerator[Object]:
        """As `GyozaClient.watch_all`."""
        stream = calls.stream_all(op_definition, types, tags, after)
        return self._follow(EventFollowing(stream, "pos", after, lost))

    async def upload_file(
        self, source: transfer.Source, *, name: str | None = None, media_type: str | None = None
    ) -> Object:
        """As `GyozaClient.upload_file`; the reading happens in another thread."""
        with transfer.leaving(source, name, media_type) as upload:

            async def chunks() -> AsyncIterator[bytes]:
                while data := await asyncio.to_thread(upload.chunk):
                    yield data

            return await self.send(upload.call(chunks()))

    async def download_file(self, file: str, path: str | os.PathLike[str], *, sha256: str | None = None) -> Path:
        """As `GyozaClient.download_file`; the writing happens in another thread."""
        target = Path(path)
        async with self._streamed(calls.download_file(file)) as response:
            with transfer.arriving(target, sha256 or response.headers.get(STORED_SHA256)) as take:
                async for data in response.aiter_bytes(transfer.CHUNK):
                    await asyncio.to_thread(take, data)
        return target

    def follow_logs(self, run_id: str, attempt: int | None = None, offset: int = 0) -> AsyncGenerator[bytes]:
        """As `GyozaClient.follow_logs`."""
        return self._follow(LogFollowing(run_id, attempt, offset))

    async def _follow(self, following: Following[T]) -> AsyncGenerator[T]:
        while not following.ended:
            await asyncio.sleep(following.pause_s)
            try:
                async with self._streamed(following.call()) as response:
                    following.begin(response)
                    async for data in response.aiter_bytes():
                        for each in following.took(data):
                            yield each
                following.finish()
            except (GyozaUnreachable, ServerFailed) as error:
                following.lose(error)

    @asynccontextmanager
    async def _streamed(self, call: Call[None]) -> AsyncGenerator[httpx.Response]:
        """An answer that is no refusal, its body to be read."""
        with _heard(self.address, self.timeout):
            async with self._http.stream(**_request(call, self.timeout)) as response:
                if not response.is_success:
                    await response.aread()
                call.read(response)
                yield response


class _Settings(TypedDict):
    base_url: str
    headers: dict[str, str]
    limits: httpx.Limits
    trust_env: bool
    verify: bool


def _settings(address: Address) -> _Settings:
    """A proxy named in the environment is not asked for this host; certificates are loaded only where they matter."""
    return {
        "base_url": address.url,
        "headers": address.headers(),
        "limits": LIMITS,
        "trust_env": not address.local,
        "verify": address.url.startswith("https:"),
    }


def _request(call: Call[Any], timeout_s: float | None) -> dict[str, Any]:
    read_s = None if timeout_s is None else timeout_s + call.wait_s
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.params),
        "content": call.content,
        "headers": dict(call.headers),
        "timeout": httpx.Timeout(timeout_s, read=read_s),
    }


@contextmanager
def _heard(address: Address, timeout_s: float | None) -> Generator[None]:
    """No answer, in Gyoza's words."""
    try:
        yield
    except httpx.RequestError as error:
        raise unreachable(error, address.url, timeout_s) from error


def _is_over(run: Object) -> bool:
    return OpRunState(run["state"]).is_terminal


def _outputs(run: Object) -> Object:
    if run["state"] == OpRunState.COMPLETED:
        return run["outputs"]
    raise RunCancelled(run) if run["state"] == OpRunState.CANCELLED else RunFailed(run)
