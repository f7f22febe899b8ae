"""Files: kept once, given back whole or in ranges, and never lost to somebody else's deletion."""

import asyncio
from pathlib import Path

import httpx

from gyoza.control import files
from gyoza.control.once import Reply
from gyoza.server.context import Context
from gyoza.server.filestore import Arrived
from gyoza.store import files as store

from .actors import told


async def put(api: httpx.AsyncClient, content: bytes, name: str = "a.txt") -> httpx.Response:
    return await api.post("/files", params={"name": name}, content=content, headers={"content-type": "text/plain"})


async def kept(server: Context, upload: files.Upload, arrived: Arrived) -> files.File:
    made: list[files.File] = []

    def render(file: files.File, is_new: bool) -> Reply:
        made.append(file)
        return Reply(201, b"")

    await files.keep(server.database, upload, arrived.adopt, render, server.now())
    return made[-1]


async def test_the_same_bytes_under_the_same_name_are_one_file(api: httpx.AsyncClient):
    first, again, other = await put(api, b"abc"), await put(api, b"abc"), await put(api, b"abc", "b.txt")
    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
    assert first.json() == again.json() and first.json()["sha256"] == other.json()["sha256"]
    assert first.json()["id"] != other.json()["id"]


async def test_a_file_is_given_back_whole_and_in_ranges(api: httpx.AsyncClient):
    kept = told(await put(api, b"0123456789", "digits.txt"), 201)
    path = f"/files/{kept['id']}"
    assert (await api.get(path)).content == b"0123456789"
    part = await api.get(path, headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")


async def test_bytes_stay_as_long_as_a_file_has_them(api: httpx.AsyncClient):
    one, other = told(await put(api, b"shared", "1"), 201), told(await put(api, b"shared", "2"), 201)
    assert (await api.delete(f"/files/{one['id']}")).status_code == 204
    assert (await api.get(f"/files/{one['id']}")).status_code == 404
    assert (await api.get(f"/files/{other['id']}")).content == b"shared"


async def test_an_upload_survives_the_deletion_of_the_same_bytes(server: Context):
    """The bytes have arrived, the last file with them is deleted, and only then is the new one kept."""

    async def stream():
        yield b"the same bytes"

    async with server.files.received(stream()) as first:
        upload = files.Upload(first.sha256, first.size, "one", "text/plain")
        one = await kept(server, upload, first)
    async with server.files.received(stream()) as second:
        await files.delete(server.database, one.id, server.files.discard)
        upload = files.Upload(second.sha256, second.size, "two", "text/plain")
        two = await kept(server, upload, second)
    assert server.files.path(two.sha256).read_bytes() == b"the same bytes"


async def test_nobody_else_on_the_host_may_look_into_the_file_store(server: Context, tmp_path: Path):
    assert server.files.is_ready()
    assert (tmp_path / "data" / "files").stat().st_mode & 0o077 == 0


async def test_an_upload_that_breaks_off_leaves_nothing(server: Context, tmp_path: Path):
    async def stream():
        yield b"half"
        raise ConnectionResetError

    try:
        async with server.files.received(stream()):
            raise AssertionError("half a file has arrived")
    except ConnectionResetError:
        assert [path for path in (tmp_path / "data" / "files").rglob("*") if path.is_file()] == []


async def test_the_same_bytes_are_not_kept_and_deleted_at_once(server: Context):
    async def stream():
        yield b"busy"

    async with server.files.received(stream()) as arrived:
        upload = files.Upload(arrived.sha256, arrived.size, "one", "text/plain")
        file = await kept(server, upload, arrived)
    async with server.database.connection() as connection:
        async with connection.transaction():
            await store.lock(connection, file.sha256)
            deleting = asyncio.create_task(files.delete(server.database, file.id, server.files.discard))
            keeping = asyncio.create_task(kept(server, upload, arrived))
            await asyncio.wait([deleting, keeping], timeout=0.3)
            assert not deleting.done() and not keeping.done()
        await asyncio.wait_for(asyncio.gather(deleting, keeping), 10)
