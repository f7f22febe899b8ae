"""Keys: shown once, kept as hashes, good until they expire or are revoked, and then no more."""

import asyncio
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from gyoza.control.keys import new_text
from gyoza.models.keys import SHAPE
from gyoza.server.app import running
from gyoza.server.context import Context
from gyoza.server.settings import Settings
from gyoza.store.database import Clock

from .actors import Json, a_key, by, pointers, refused, submit, told, until
from .conftest import client_of


class Moved(Clock):
    """The clock of a server, as much ahead as a test says."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


@pytest.fixture
def clock(server: Context) -> Moved:
    server.database.clock = moved = Moved()
    return moved


@pytest.fixture
async def kept(server: Context) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server whose database and clock the test looks at."""
    async with client_of(server) as client:
        yield client


async def listed(api: httpx.AsyncClient, key: Json) -> Json:
    """The key as it is shown in the list."""
    return next(each for each in told(await api.get("/keys")) if each["id"] == key["id"])


def test_a_key_has_256_random_bits_and_says_what_it_is():
    texts = {new_text() for _ in range(100)}
    assert len(texts) == 100
    assert all(SHAPE.fullmatch(text.encode()) and len(text) == len("gyoza_") + 43 for text in texts)


async def test_a_key_is_told_once_and_never_shown_again(api: httpx.AsyncClient):
    answer = await api.post("/keys", json={"name": "ci", "expires_in_s": 60})
    made = told(answer, 201)
    assert answer.headers["cache-control"] == "no-store"
    text = made.pop("key")
    assert SHAPE.fullmatch(text.encode())
    assert made == await listed(api, made)
    assert made["hint"] == text[-4:]
    assert text not in (await api.get("/keys")).text


async def test_a_key_is_listed_with_all_but_its_text(api: httpx.AsyncClient):
    made = await a_key(api, "a machine", scopes=["worker"], worker="w1", expires_in_s=3600.5)
    shown = await listed(api, made)
    created, expires = (datetime.fromisoformat(shown[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(seconds=3600.5)
    assert shown == {
        "id": made["id"],
        "name": "a machine",
        "scopes": ["worker"],
        "worker": "w1",
        "hint": made["key"][-4:],
        "created_at": made["created_at"],
        "created_by": "bootstrap",
        "expires_at": made["expires_at"],
        "revoked_at": None,
        "last_used_at": None,
    }


async def test_a_key_may_submit_unless_it_is_made_for_something_else(api: httpx.AsyncClient):
    made = await a_key(api)
    assert (made["scopes"], made["worker"], made["expires_at"]) == (["submit"], None, None)


async def test_scopes_are_listed_in_their_order_and_once(api: httpx.AsyncClient):
    made = await a_key(api, scopes=["read", "admin", "read", "submit"])
    assert made["scopes"] == ["admin", "submit", "read"]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"/name"}),
        ({"name": ""}, {"/name"}),
        ({"name": "a/b"}, {"/name"}),
        ({"name": "a\nb"}, {"/name"}),
        ({"name": "x" * 201}, {"/name"}),
        ({"name": "bootstrap"}, {"/name"}),
        ({"name": "a", "scopes": []}, {"/scopes"}),
        ({"name": "a", "scopes": "admin"}, {"/scopes"}),
        ({"name": "a", "scopes": ["root"]}, {"/scopes/0"}),
        ({"name": "a", "scopes": ["worker"]}, {"/worker"}),
        ({"name": "a", "scopes": ["worker", "read"], "worker": "w1"}, {"/scopes"}),
        ({"name": "a", "worker": "w1"}, {"/worker"}),
        ({"name": "a", "scopes": ["admin"], "worker": "w1"}, {"/worker"}),
        ({"name": "a", "scopes": ["worker"], "worker": "a/b"}, {"/worker"}),
        ({"name": "a", "expires_in_s": 0}, {"/expires_in_s"}),
        ({"name": "a", "expires_in_s": 1e12}, {"/expires_in_s"}),
        ({"name": "a", "key": "mine"}, {"/key"}),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused_by_its_place(api: httpx.AsyncClient, body: Json, wrong: set[str]):
    assert pointers(await api.post("/keys", json=body)) == wrong


@pytest.mark.parametrize("header", ["X-API-Key: {}", "Authorization: Bearer {}", "Authorization: bearer  {} "])
async def test_either_header_carries_it(api: httpx.AsyncClient, header: str):
    made = await a_key(api)
    name, _, value = header.format(made["key"]).partition(": ")
    assert (await api.get("/runs", headers={"X-API-Key": made["key"], name: value})).status_code == 200
    bare = httpx.AsyncClient(transport=api._transport, base_url=api.base_url)
    assert (await bare.get("/runs", headers={name: value})).status_code == 200


async def test_a_revoked_key_is_refused_at_once_and_stays_so(api: httpx.AsyncClient):
    made = await a_key(api)
    told(await api.get("/runs", headers=by(made)))
    assert (await api.delete(f"/keys/{made['id']}")).status_code == 204
    await until_refused(api, made)
    revoked_at = (await listed(api, made))["revoked_at"]
    assert revoked_at
    assert (await api.delete(f"/keys/{made['id']}")).status_code == 204
    assert (await listed(api, made))["revoked_at"] == revoked_at
    detail = refused(await api.get("/runs", headers=by(made)), 401, "unauthorized")["detail"]
    assert "is not known here, or has expired or was revoked" in detail


@pytest.mark.parametrize(
    "key_id", ["01890000-0000-7000-8000-000000000000", "ci", "%00", "0189000000007000800000000000"]
)
async def test_only_a_key_that_is_there_is_revoked(api: httpx.AsyncClient, key_id: str):
    refused(await api.delete(f"/keys/{key_id}"), 404, "key_not_found")


async def test_two_keys_of_one_name_take_over_from_one_another_without_a_gap(api: httpx.AsyncClient):
    old, new = await a_key(api, "deploys", scopes=["admin"]), await a_key(api, "deploys", scopes=["admin"])
    assert old["id"] != new["id"] and old["key"] != new["key"]
    for key in (old, new):
        made = told(await api.post("/keys", json={"name": "x"}, headers=by(key)), 201)
        run = told(await api.post("/runs", json={"image": "a"}, headers=by(key)), 201)
        assert {made["created_by"], run["submitted_by"]} == {"deploys"}, "who asks is the name, whichever key it is"
    assert (await api.delete(f"/keys/{old['id']}", headers=by(new))).status_code == 204
    await until_refused(api, old)
    told(await api.get("/runs", headers=by(new)))


async def test_a_key_expires_to_the_moment_though_it_was_used_just_before(kept: httpx.AsyncClient, clock: Moved):
    made = await a_key(kept, expires_in_s=60)
    clock.ahead = timedelta(seconds=59)
    told(await kept.get("/runs", headers=by(made)))
    clock.ahead = timedelta(seconds=60)
    refused(await kept.get("/runs", headers=by(made)), 401, "unauthorized")
    shown = await listed(kept, made)
    assert shown["revoked_at"] is None
    assert shown["last_used_at"] < shown["expires_at"]


async def test_when_a_key_was_used_is_known_to_the_minute(server: Context, kept: httpx.AsyncClient, clock: Moved):
    made = await a_key(kept)

    async def used_after(seconds: float) -> Any:
        clock.ahead = timedelta(seconds=seconds)
        async with client_of(server) as another:  # which knows of no key yet
            told(await another.get("/runs", headers=by(made)))
        return (await listed(kept, made))["last_used_at"]

    first = await used_after(0)
    assert first is not None
    assert await used_after(30) == first
    later = await used_after(90)
    assert datetime.fromisoformat(later) - datetime.fromisoformat(first) > timedelta(seconds=60)


async def test_a_key_that_is_refused_was_not_used(kept: httpx.AsyncClient, clock: Moved):
    expired, revoked = await a_key(kept, expires_in_s=5), await a_key(kept)
    await kept.delete(f"/keys/{revoked['id']}")
    clock.ahead = timedelta(seconds=5)
    for key in (expired, revoked):
        refused(await kept.get("/runs", headers=by(key)), 401)
        assert (await listed(kept, key))["last_used_at"] is None


async def test_the_database_holds_no_key_but_its_hash(database_url: str, kept: httpx.AsyncClient):
    made = await a_key(kept, scopes=["admin"])
    await submit(kept)
    told(await kept.get("/keys", headers=by(made)))
    text = made["key"]
    random = text.removeprefix("gyoza_")
    forms = [
        part
        for secret in (text, random, random[:20], random[-20:])
        for part in (secret, secret.encode().hex(), b64encode(secret.encode()).decode())
    ]
    dump = dumped(database_url)
    assert sha256(text.encode()).hexdigest() in dump
    assert [form for form in forms if form in dump] == []
    assert urlsafe_b64encode(sha256(text.encode()).digest()).decode() not in dump


def dumped(url: str) -> str:
    """Every row of every table, as text."""
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(tables) > 10
        rows = [connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall() for (name,) in tables]
    return "\n".join(str(row) for table in rows for row in table)


async def test_a_key_revoked_on_one_server_is_refused_on_another_soon(
    database_url: str, kept: httpx.AsyncClient, tmp_path: Path
):
    made = await a_key(kept)
    settings = Settings(data_dir=tmp_path / "another")
    async with running(settings, database_url, asyncio.Event()) as context, client_of(context) as another:
        told(await another.get("/runs", headers=by(made)))
        assert (await kept.delete(f"/keys/{made['id']}")).status_code == 204
        await until_refused(another, made, within_s=2)


async def until_refused(api: httpx.AsyncClient, key: Json, within_s: float = 5) -> None:
    async def look() -> bool:
        return (await api.get("/runs", headers=by(key))).status_code == 401

    await until(look, within_s=within_s)
