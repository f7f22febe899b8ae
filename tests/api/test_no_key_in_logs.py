"""However much a server logs, and whatever goes wrong, no key is in it: not its text, and not its hash."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256

import httpx
import pytest
import uvicorn

from gyoza.client import AsyncGyozaClient, ResponseError
from gyoza.control.keys import new_text
from gyoza.server.app import create_app
from gyoza.server.context import Context

from .actors import a_key, by, until

OWN = new_text()


@dataclass
class Talkative:
    """A server that logs all it can, with a route that crashes."""

    url: str
    api: httpx.AsyncClient
    seen: list[str] = field(default_factory=list)


@pytest.fixture
async def talkative(server: Context, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Talkative]:
    async def crash() -> None:
        raise RuntimeError("the inside")

    caplog.set_level(logging.DEBUG)
    app = create_app(server, OWN)
    app.add_api_route("/crash", crash)
    # Without uvicorn's own handlers, what it logs is caught like the rest.
    config = uvicorn.Config(app, lifespan="off", log_config=None, log_level="debug", access_log=True)
    uvicorn_server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
        url = "http://{}:{}".format(*listener.getsockname())
        async with httpx.AsyncClient(base_url=url, headers=by(OWN)) as api:
            yield Talkative(url, api)
        uvicorn_server.should_exit = True
        await serving


async def test_no_key_is_in_any_log(
    talkative: Talkative, server: Context, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    api = talkative.api
    good, revoked = await a_key(api, scopes=["admin"]), await a_key(api)
    worker = await a_key(api, scopes=["worker"], worker="w1")
    await api.delete(f"/keys/{revoked['id']}")
    unknown = new_text()
    keys = [OWN, good["key"], revoked["key"], worker["key"], unknown, "another-wrong-one"]
    for key in keys:
        for headers in (by(key), {"Authorization": f"Bearer {key}"}):
            for method, path in (("GET", "/keys"), ("POST", "/runs"), ("GET", "/crash"), ("GET", "/nothing")):
                await api.request(method, path, headers=headers)
        async with AsyncGyozaClient(talkative.url, key) as client:
            try:
                await client.list_keys()
            except ResponseError as error:
                assert key not in f"{error} {error!r} {error.problem} {error.request} {error.response}"
            assert key not in f"{client.address} {client!r}"
    await server.database.transact(lambda connection: connection.execute("SELECT pg_notify('gyoza', '[\"keys\"]')"))
    written = caplog.text + "".join(capfd.readouterr())
    for what in ("the inside", "httpcore", "uvicorn", "/crash"):
        assert what in written, "the logs are those of all who were at work"
    hashes = [sha256(key.encode()) for key in keys]
    secrets = [*keys, *(key.removeprefix("gyoza_")[:20] for key in keys), *(each.hexdigest() for each in hashes)]
    assert [secret for secret in secrets if secret in written] == []
    assert [each.hexdigest() for each in hashes if repr(each.digest())[2:-1] in written] == []


async def test_a_crash_that_holds_a_key_in_hand_does_not_tell_it(
    talkative: Talkative, server: Context, caplog: pytest.LogCaptureFixture
):
    """The table of keys is gone: whoever looks for a key crashes, with the key at hand."""
    key = await a_key(talkative.api)
    async with server.database.connection() as connection:
        await connection.execute("ALTER TABLE keys RENAME TO no_keys")
    assert (await talkative.api.get("/runs", headers=by(key))).status_code == 500
    refused = await talkative.api.post("/keys", json={"name": "x"})
    assert refused.status_code == 500
    await until(lambda: has_crashed(caplog), within_s=5)
    assert key["key"] not in caplog.text
    assert sha256(key["key"].encode()).hexdigest() not in caplog.text


async def has_crashed(caplog: pytest.LogCaptureFixture) -> bool:
    return 'relation "keys" does not exist' in caplog.text
