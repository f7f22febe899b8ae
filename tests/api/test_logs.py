"""Logs as a worker sends them and as anybody reads them: each byte once, in its place, whatever is sent twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

import gyoza.server.routes.logs
import gyoza.store.logs
from gyoza.models.keys import Caller, Scope
from gyoza.server.app import running
from gyoza.server.context import Context
from gyoza.server.settings import Settings

from .actors import Json, Worker, event, in_state, pointers, refused, say, submit, told
from .conftest import client_of

MB = 2**20
MARKER = b"\n[gyoza: the log was cut here: it reached 1048576 bytes]\n"


@pytest.fixture
async def one(alone: httpx.AsyncClient, worker: Callable[..., Worker]) -> Worker:
    return await worker("w1").registered()


@pytest.fixture
async def held(alone: httpx.AsyncClient, one: Worker) -> Json:
    """An assignment that the worker has taken up."""
    return await taken_up(alone, one)


async def taken_up(api: httpx.AsyncClient, one: Worker, *known: Json) -> Json:
    await submit(api)
    held = await one.assignment(*known)
    await one.report(held, event("STARTED"))
    return held


async def written(api: httpx.AsyncClient, held: Json, **query: Any) -> bytes:
    answer = await api.get(f"/runs/{held['run_id']}/logs", params={"attempt": held["attempt"], **query})
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_what_is_sent_can_be_read(alone: httpx.AsyncClient, one: Worker, held: Json):
    assert told(await one.log(held, b"hello\n", 0)) == {"offset": 6, "cut": False}
    assert told(await one.log(held, b"world\n", 6)) == {"offset": 12, "cut": False}
    assert await written(alone, held) == b"hello\nworld\n"
    assert await written(alone, held, offset=3) == b"lo\nworld\n"
    assert await written(alone, held, offset=12) == b""
    assert await written(alone, held, offset=10**18) == b""


async def test_an_answer_says_what_it_is(alone: httpx.AsyncClient, one: Worker, held: Json):
    await one.log(held, b"hello", 0)
    answer = await alone.get(f"/runs/{held['run_id']}/logs?offset=2")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    said = {name: value for name, value in answer.headers.items() if name.startswith("gyoza-")}
    assert said == {
        "gyoza-attempt": "1",
        "gyoza-log-offset": "2",
        "gyoza-log-size": "5",
        "gyoza-log-cut": "false",
        "gyoza-log-ended": "false",
    }
    assert answer.headers["content-length"] == "3"


async def test_a_run_that_wrote_nothing_has_an_empty_log(alone: httpx.AsyncClient):
    for state, ended in (("PENDING", "false"), ("RUNNING", "false"), ("FAILED", "true")):
        run = await in_state(alone, state)
        answer = await alone.get(f"/runs/{run['id']}/logs")
        assert (answer.status_code, answer.content, answer.headers["gyoza-log-ended"]) == (200, b"", ended)


async def test_bytes_that_are_no_text_come_back_as_they_were(alone: httpx.AsyncClient, one: Worker, held: Json):
    data = bytes(range(256)) * 3 + b"\xff\xfe\x00\x1b[31m\xe2\x82"
    await one.log(held, data, 0)
    assert await written(alone, held) == data


async def test_what_is_sent_again_is_kept_once(alone: httpx.AsyncClient, one: Worker, held: Json):
    await one.log(held, b"0123456789", 0)
    for data, offset in ((b"0123456789", 0), (b"345", 3), (b"9", 9)):
        assert told(await one.log(held, data, offset)) == {"offset": 10, "cut": False}
    assert told(await one.log(held, b"89ab", 8)) == {"offset": 12, "cut": False}
    assert await written(alone, held) == b"0123456789ab"


async def test_a_gap_is_refused_with_the_right_offset(alone: httpx.AsyncClient, one: Worker, held: Json):
    await one.log(held, b"01234", 0)
    problem = refused(await one.log(held, b"x", 6), 409, "wrong_offset")
    assert problem["offset"] == 5
    assert await written(alone, held) == b"01234"


async def test_nothing_changes_nothing_and_tells_where_the_log_goes_on(
    alone: httpx.AsyncClient, one: Worker, held: Json
):
    await one.log(held, b"01234", 0)
    for offset in (0, 5, 99):
        assert told(await one.log(held, b"", offset)) == {"offset": 5, "cut": False}
    assert await written(alone, held) == b"01234"


async def test_who_holds_no_lease_writes_nothing(alone: httpx.AsyncClient, one: Worker, held: Json):
    refused(await one.log({**held, "lease_token": "another"}, b"x", 0), 409, "lease_lost")
    refused(await one.log({**held, "lease_token": "another"}, b"", 0), 409, "lease_lost")
    refused(await one.log({**held, "attempt": 2}, b"x", 0), 404, "attempt_not_found")
    refused(await one.log({**held, "run_id": "x"}, b"x", 0), 404, "run_not_found")
    waiting = await submit(alone, constraints={"cpu": 1000})
    refused(await one.log({**held, "run_id": waiting["id"]}, b"x", 0), 409, "lease_lost")
    assert await written(alone, held) == b""


async def test_a_misshapen_request_is_told_where(alone: httpx.AsyncClient, held: Json):
    path, lease = f"/runs/{held['run_id']}/attempts/1/logs", {"Gyoza-Lease": "x"}
    assert pointers(await alone.put(f"{path}?offset=0")) == {"/header/Gyoza-Lease"}
    for query in ("", "?offset=x", "?offset=-1", f"?offset={2**63}"):
        assert pointers(await alone.put(f"{path}{query}", headers=lease)) == {"/query/offset"}
    of_run = f"/runs/{held['run_id']}"
    assert pointers(await alone.put(f"{of_run}/attempts/0/logs?offset=0", headers=lease)) == {"/path/attempt"}
    assert pointers(await alone.get(f"{of_run}/logs?attempt=0&offset=-1")) == {"/query/attempt", "/query/offset"}
    refused(await alone.get(f"{of_run}/logs?attempt=2"), 404, "attempt_not_found")
    refused(await alone.get("/runs/x/logs"), 404, "run_not_found")


async def test_a_body_beyond_16_megabytes_is_refused_and_leaves_nothing(
    alone: httpx.AsyncClient, one: Worker, held: Json
):
    refused(await one.log(held, bytes(16 * MB + 1), 0), 413, "too_large")
    assert await written(alone, held) == b""


async def test_an_attempt_may_write_after_its_end_until_it_is_settled(
    alone: httpx.AsyncClient, one: Worker, held: Json
):
    await one.report(held, event("COMPLETED"))
    told(await one.log(held, b"the last words", 0))
    await one.report(held, settled=True)
    refused(await one.log(held, b"too late", 14), 409, "lease_lost")
    refused(await one.log(held, b"the last words", 0), 409, "lease_lost")
    assert await written(alone, held) == b"the last words"


async def test_each_attempt_has_a_log_of_its_own(alone: httpx.AsyncClient, one: Worker, held: Json):
    await one.log(held, b"first", 0)
    await one.report(held, event("FAILED"), settled=True)
    told(await alone.post(f"/runs/{held['run_id']}/retry"))
    again = await one.assignment()
    await one.log(again, b"second", 0)
    assert (await written(alone, held), await written(alone, again)) == (b"first", b"second")
    current = await alone.get(f"/runs/{held['run_id']}/logs")
    assert (current.content, current.headers["gyoza-attempt"]) == (b"second", "2")


async def test_a_worker_s_key_writes_what_that_worker_holds_alone(
    alone: httpx.AsyncClient, one: Worker, held: Json, monkeypatch: pytest.MonkeyPatch
):
    keys = {name: Caller(name, frozenset({Scope.WORKER}), worker=name) for name in ("w1", "w2")}
    monkeypatch.setattr(gyoza.server.routes.logs, "caller", lambda request: keys[request.headers["as"]])
    refused(await one.log(held, b"x", 0, **{"as": "w2"}), 409, "lease_lost")
    told(await one.log(held, b"mine", 0, **{"as": "w1"}))
    assert await written(alone, held) == b"mine"


@pytest.mark.parametrize("seed", range(6))
async def test_any_course_of_sending_leaves_exactly_what_was_written(
    alone: httpx.AsyncClient, one: Worker, held: Json, seed: int
):
    dice, log = random.Random(seed), bytearray()
    source = dice.randbytes(4 * MB)
    for _ in range(40):
        offset = max(0, len(log) + dice.choice([0, 0, 0, 1, -1, 7, -100, -70_000, dice.randint(-len(log), 99)]))
        size = dice.choice([0, 1, 50, 3000, 66_000, dice.randint(0, 300_000)])
        answer = await one.log(held, source[offset : offset + size], offset)
        if offset > len(log) and size:
            assert refused(answer, 409, "wrong_offset")["offset"] == len(log)
        else:
            log += source[len(log) : offset + size] if size else b""
            assert told(answer) == {"offset": len(log), "cut": False}
        place = dice.randint(0, len(log) + 10)
        assert await written(alone, held, offset=place) == log[place:]
    assert await written(alone, held) == log


async def test_the_same_bytes_sent_at_once_are_kept_once(alone: httpx.AsyncClient, one: Worker, held: Json):
    log, source = bytearray(), random.Random(1).randbytes(600_000)
    for _ in range(6):
        part = source[len(log) : len(log) + 100_000]
        answers = await asyncio.gather(*(one.log(held, part[: len(part) - n], len(log)) for n in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        log += part
        assert max(told(answer)["offset"] for answer in answers) == len(log)
        assert await written(alone, held) == log
    assert sum(len(path.read_bytes()) for path in await chunks_of(alone, held)) == len(log)


async def test_many_small_parts_make_few_chunks(alone: httpx.AsyncClient, one: Worker, held: Json):
    line, sent = b"x" * 999 + b"\n", 0
    for _ in range(300):
        sent = told(await one.log(held, line, sent))["offset"]
    assert sent == 300_000
    assert await written(alone, held) == line * 300
    assert len(await chunks_of(alone, held)) <= 300_000 // 65_536 + 1


async def test_a_large_part_makes_chunks_of_a_megabyte(alone: httpx.AsyncClient, one: Worker, held: Json):
    data = random.Random(2).randbytes(5 * MB + 10)
    await one.log(held, b"some", 0)
    told(await one.log(held, data, 4))
    assert await written(alone, held) == b"some" + data
    assert sorted(path.stat().st_size for path in await chunks_of(alone, held)) == [14, *[MB] * 5]


async def chunks_of(api: httpx.AsyncClient, held: Json) -> list[Path]:
    """The files of a log."""
    app: Any = api._transport.app  # type: ignore[attr-defined]
    context: Context = app.state.context
    async with context.database.connection() as connection:
        cursor = await connection.execute("SELECT name FROM log_chunks WHERE run_id = %s", [held["run_id"]])
        named = {row[0] for row in await cursor.fetchall()}
    root: Path = context.shelf._root  # type: ignore[attr-defined]
    found = [path for path in (root / "logs").rglob("*") if path.is_file() and held["run_id"] in str(path)]
    assert {str(path.relative_to(root)) for path in found} == named, "what no row names was discarded"
    return found


@pytest.fixture
async def scant(database_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server whose logs may have a megabyte."""
    settings = Settings(data_dir=tmp_path / "data", log_limit_mb=1)
    async with running(settings, database_url, asyncio.Event()) as context, client_of(context) as client:
        yield client


async def test_a_log_is_cut_at_its_limit_and_says_so_once(scant: httpx.AsyncClient):
    one = await Worker(scant, "w1").registered()
    held = await taken_up(scant, one)
    assert told(await one.log(held, b"a" * MB, 0)) == {"offset": MB, "cut": False}
    assert MARKER not in await written(scant, held)
    assert told(await one.log(held, b"ab", MB - 1)) == {"offset": MB + 1, "cut": True}
    for data, offset in ((b"ab", MB - 1), (b"b" * 100, MB + 1), (b"c", 2 * MB), (b"", 7), (b"a", 0)):
        assert told(await one.log(held, data, offset)) == {"offset": offset + len(data), "cut": True}
    assert await written(scant, held) == b"a" * MB + MARKER
    assert await written(scant, held, offset=MB) == MARKER
    answer = await scant.get(f"/runs/{held['run_id']}/logs")
    assert (answer.headers["gyoza-log-cut"], answer.headers["gyoza-log-size"]) == ("true", str(MB + len(MARKER)))
    refused(await one.log({**held, "lease_token": "x"}, b"d", 0), 409, "lease_lost")


async def test_those_who_reach_the_limit_at_once_leave_one_marker(scant: httpx.AsyncClient):
    one = await Worker(scant, "w1").registered()
    held = await taken_up(scant, one)
    await one.log(held, b"a" * (MB - 10), 0)
    answers = await asyncio.gather(*(one.log(held, b"a" * 100, MB - 10) for _ in range(8)))
    assert [told(answer) for answer in answers] == [{"offset": MB + 90, "cut": True}] * 8
    assert await written(scant, held) == b"a" * MB + MARKER


async def test_what_breaks_off_before_it_is_kept_leaves_the_log_as_it_was(
    alone: httpx.AsyncClient, one: Worker, held: Json, monkeypatch: pytest.MonkeyPatch
):
    """The bytes lie there already, and then the database goes away."""

    async def lost(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError("gone")

    await one.log(held, b"before ", 0)
    with monkeypatch.context() as broken:
        broken.setattr(gyoza.store.logs, "extend", lost)
        refused(await one.log(held, b"never", 7), 503, "database_unavailable")
    assert await written(alone, held) == b"before "
    told(await one.log(held, b"after", 7))
    assert await written(alone, held) == b"before after"


async def test_a_chunk_that_is_lost_from_the_disk_harms_only_its_own_bytes(
    alone: httpx.AsyncClient, one: Worker, held: Json
):
    await one.log(held, b"lost", 0)
    (chunk,) = await chunks_of(alone, held)
    chunk.unlink()
    assert told(await one.log(held, b"kept", 4)) == {"offset": 8, "cut": False}
    assert await written(alone, held, offset=4) == b"kept"


async def test_an_end_from_outside_takes_a_log_as_well(alone: httpx.AsyncClient, one: Worker, held: Json):
    """A cancelled attempt goes on writing until its worker has stopped it."""
    told(await say(alone, {"id": held["run_id"]}, "CANCELLED"))
    told(await one.log(held, b"stopping", 0))
    assert await written(alone, held) == b"stopping"
