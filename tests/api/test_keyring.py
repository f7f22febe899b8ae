"""What a server knows of keys without asking the database: little, and not for long."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from fastapi.responses import StreamingResponse
from psycopg.conninfo import conninfo_to_dict

from gyoza.control import keys
from gyoza.control.keys import Wanted, new_text
from gyoza.models.keys import BOOTSTRAP, Scope
from gyoza.server import keyring as keyrings
from gyoza.server.app import create_app
from gyoza.server.context import Context
from gyoza.server.keyring import Keyring
from gyoza.store.bell import Bell
from gyoza.store.database import Database

from .actors import Json, a_key, by, refused, until
from .conftest import KEY, client_of

FOR_EVER = 3600.0


async def made(database: Database) -> tuple[str, bytes]:
    """Id and text of a new key."""
    key, text = await keys.create(database, Wanted("ci", [Scope.READ]), "a test", database.clock.now())
    return key.id, text.encode()


async def revoke(database: Database, key_id: str) -> None:
    await keys.revoke(database, key_id, database.clock.now())


@pytest.fixture
async def bell(database_url: str) -> AsyncIterator[Bell]:
    async with Bell(database_url) as bell:
        yield bell


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The digests that the database was asked for."""
    found, seen = keys.find, list[bytes]()

    async def find(database: Database, hashed: bytes, now: Any) -> Any:
        seen.append(hashed)
        return await found(database, hashed, now)

    monkeypatch.setattr(keys, "find", find)
    return seen


async def test_the_key_of_the_server_needs_no_database(database: Database, bell: Bell, looks: list[bytes]):
    ring = Keyring(database, bell, KEY)
    assert await ring.caller(KEY.encode()) is BOOTSTRAP
    assert looks == []


async def test_what_has_not_the_shape_of_a_key_is_not_looked_for(database: Database, bell: Bell, looks: list[bytes]):
    ring = Keyring(database, bell, KEY)
    for wrong in (b"wrong", b"gyoza_", b"gyoza_short", new_text().encode() + b"x", KEY.upper().encode(), b"\xff"):
        assert await ring.caller(wrong) is None
    assert looks == []


async def test_a_key_is_looked_for_once_be_it_right_or_wrong(database: Database, bell: Bell, looks: list[bytes]):
    ring, (_, right) = Keyring(database, bell, KEY, forget_after_s=FOR_EVER), await made(database)
    wrong = new_text().encode()
    for _ in range(3):
        assert await ring.caller(right) is not None
        assert await ring.caller(wrong) is None
    assert len(looks) == 2


async def test_those_who_come_together_share_one_look(database: Database, bell: Bell, looks: list[bytes]):
    ring, (_, text) = Keyring(database, bell, KEY), await made(database)
    callers = await asyncio.gather(*(ring.caller(text) for _ in range(100)))
    assert {caller.name for caller in callers if caller} == {"ci"} and None not in callers
    assert len(looks) == 1


async def test_one_who_goes_away_does_not_take_the_answer_from_the_others(database: Database, bell: Bell):
    ring, (_, text) = Keyring(database, bell, KEY), await made(database)
    first, second = (asyncio.create_task(ring.caller(text)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None


async def test_a_revoked_key_is_forgotten_as_soon_as_the_bell_rings(database: Database, bell: Bell):
    ring, (key_id, text) = Keyring(database, bell, KEY, forget_after_s=FOR_EVER), await made(database)
    assert await ring.caller(text) is not None
    await revoke(database, key_id)
    await until(lambda: is_refused(ring, text), within_s=5)


async def test_a_revoked_key_is_forgotten_in_time_though_the_bell_is_silent(database: Database):
    silent = Bell(database.url)
    ring, (key_id, text) = Keyring(database, silent, KEY, forget_after_s=0.5), await made(database)
    assert await ring.caller(text) is not None
    await revoke(database, key_id)
    assert await ring.caller(text) is not None, "it is known still"
    await until(lambda: is_refused(ring, text), within_s=5)
    assert 0 < keyrings.FORGET_AFTER_S <= 5


async def test_what_was_looked_up_before_the_ring_is_not_known_after_it(database: Database, bell: Bell):
    """The look begins before the key is revoked, and ends after all servers were told to forget it."""
    ring, (key_id, text) = Keyring(database, bell, KEY, forget_after_s=FOR_EVER), await made(database)
    async with database.connection() as connection, connection.transaction():
        await connection.execute("UPDATE keys SET revoked_at = now() WHERE id = %s", [key_id])
        await connection.execute("SELECT pg_notify('gyoza', %s)", ['["keys"]'])
        early = asyncio.create_task(ring.caller(text))
        await asyncio.wait([early], timeout=0.2)
        assert not early.done(), "the note of its use waits for the transaction"
    await early
    await until(lambda: is_refused(ring, text), within_s=5)


async def is_refused(ring: Keyring, text: bytes) -> bool:
    return await ring.caller(text) is None


async def test_a_look_that_fails_is_not_remembered(
    database: Database, bell: Bell, looks: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    ring, (_, text) = Keyring(database, bell, KEY, forget_after_s=FOR_EVER), await made(database)
    async with AsyncExitStack() as taken:
        for _ in range(10):
            await taken.enter_async_context(database.connection())
        with monkeypatch.context() as impatient, pytest.raises(psycopg.OperationalError):
            impatient.setattr(database._pool, "timeout", 0.05)
            await ring.caller(text)
    assert await ring.caller(text) is not None
    assert len(looks) == 2


async def test_a_flood_of_wrong_keys_is_not_kept(database: Database, bell: Bell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keyrings, "MOST", 5)
    ring = Keyring(database, bell, KEY, forget_after_s=FOR_EVER)
    for _ in range(20):
        await ring.caller(new_text().encode())
    assert len(ring._known) == 5


async def test_keys_are_compared_by_their_digests_in_constant_time(
    database: Database, bell: Bell, monkeypatch: pytest.MonkeyPatch
):
    """As long as this is the only comparison, what differs where cannot be measured."""
    compared, really = list[tuple[int, int]](), secrets.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return really(one, other)

    monkeypatch.setattr(secrets, "compare_digest", compare)
    ring = Keyring(database, bell, KEY)
    for given in (KEY, KEY + "x", "wrong", "", new_text()):
        await ring.caller(given.encode())
    assert compared == [(32, 32)] * 5


async def test_without_its_database_a_server_says_so_and_knows_its_own_key(
    postgres: str, server: Context, monkeypatch: pytest.MonkeyPatch
):
    async with client_of(server) as api:
        key = await a_key(api)
        monkeypatch.setattr(server.database._pool, "timeout", 0.5)
        with closed(postgres, server.database.url):
            answer = await api.get("/nothing", headers=by(key))
            refused(answer, 503, "database_unavailable")
            assert answer.headers["retry-after"] == "1"
            refused(await api.get("/nothing"), 404, "no_such_path")
            refused(await api.get("/nothing", headers=by("wrong")), 401)
        await until(lambda: is_answered(api, key))


async def is_answered(api: httpx.AsyncClient, key: Json) -> bool:
    return (await api.get("/nothing", headers=by(key))).status_code == 404


@contextmanager
def closed(postgres: str, url: str) -> Iterator[None]:
    """Nobody gets into this database, and those who are in are thrown out."""
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


async def test_a_stream_ends_when_its_key_is_revoked_and_no_sooner(server: Context):
    """An answer that stays open is of no use to a key that is good no longer."""
    said = 0

    async def ticking() -> AsyncIterator[bytes]:
        nonlocal said
        while True:
            said += 1
            yield b"tick\n"
            await asyncio.sleep(0.01)

    async def stream() -> StreamingResponse:
        return StreamingResponse(ticking())

    app = create_app(server, KEY)
    app.add_api_route("/stream", stream)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gyoza.test", headers=by(KEY)) as api:
        key = await a_key(api)
        streaming = asyncio.create_task(api.get("/stream", headers=by(key)))
        await asyncio.wait([streaming], timeout=0.5)
        assert said > 5 and not streaming.done()
        assert (await api.delete(f"/keys/{key['id']}")).status_code == 204
        answer = await asyncio.wait_for(streaming, 5)
        assert answer.status_code == 200 and answer.text.startswith("tick\n")
        ended = said
        await asyncio.sleep(0.05)
        assert said == ended, "whoever made the stream has stopped as well"
