"""Logs on their way to a real server: all of them, live, through whatever happens to the line, and in nobody's way."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gyoza.server.app import create_app
from gyoza.server.context import Context
from gyoza.worker.shipping import PART
from gyoza.worker.steps import logs

from .cluster import KEY, Cluster, Line

pytestmark = pytest.mark.timeout(90)
MB = 2**20
LINES = "import sys\nfor n in range({}): print(n, 'x' * 80, flush=n % 1000 == 0)"


class Unlucky(Line):
    """A line that can lose answers after they were given, and refuse what is large."""

    loses: Callable[[int], bool] = staticmethod(lambda n: False)
    largest = 16 * MB
    answers: Callable[[httpx.Request], httpx.Response | None] = staticmethod(lambda request: None)
    _count = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not is_log(request):
            return await super().handle_async_request(request)
        if len(await request.aread()) > self.largest:
            return httpx.Response(413, request=request)
        if answer := self.answers(request):
            return answer
        answer = await super().handle_async_request(request)
        self._count += 1
        if self.loses(self._count):
            raise httpx.ReadError("the answer is lost", request=request)
        return answer


def is_log(request: httpx.Request) -> bool:
    return request.method == "PUT" and request.url.path.endswith("/logs")


@pytest.fixture
def line(server: Context) -> Line:
    return Unlucky(httpx.ASGITransport(create_app(server, KEY), raise_app_exceptions=False))


def expected(lines: int) -> bytes:
    return b"".join(b"%d %s\n" % (n, b"x" * 80) for n in range(lines))


async def python(cluster: Cluster, program: str, **definition: Any) -> str:
    """Submit; the run's id."""
    return await cluster.submit('exec python3 -S -c "$PYTHON"', env={"PYTHON": program}, **definition)


async def test_whoever_sees_the_end_of_a_run_finds_its_whole_log(pipeline: Cluster) -> None:
    run_id = await pipeline.submit("printf one; printf ' two' >&2; printf ' three'")
    await pipeline.state(run_id, "COMPLETED")
    assert await pipeline.user.get_logs(run_id) == b"one two three"


async def test_a_failed_run_has_its_log_too_and_its_end_in_the_message(pipeline: Cluster) -> None:
    run = await pipeline.run("printf '\\377 bytes'; exit 3")
    assert await pipeline.user.get_logs(run["id"]) == b"\xff bytes"
    assert "last output:\n\ufffd bytes" in run["execution_summary"]["error_message"]


async def test_each_attempt_has_its_own_log(pipeline: Cluster) -> None:
    run = await pipeline.run('echo "attempt $GYOZA_ATTEMPT"; exit 1', retry_policy={"max_attempts": 2})
    assert [await pipeline.user.get_logs(run["id"], n) for n in (1, 2)] == [b"attempt 1\n", b"attempt 2\n"]


async def test_bytes_are_on_the_server_while_the_op_runs(cluster: Cluster, tmp_path: Path) -> None:
    run_id = await cluster.submit(f"printf half; until [ -e {tmp_path}/go ]; do sleep 0.02; done; printf done")

    async def half() -> bool:
        return await cluster.user.get_logs(run_id) == b"half"

    await cluster.until(half, "the first half of the log")
    assert (await cluster.user.get_run(run_id))["state"] == "RUNNING"
    (tmp_path / "go").touch()
    await cluster.ended(run_id)
    assert await cluster.user.get_logs(run_id) == b"halfdone"


async def test_many_lines_go_in_few_requests(cluster: Cluster, line: Line) -> None:
    run_id = await python(cluster, LINES.format(20_000))
    await cluster.ended(run_id)
    assert await cluster.user.get_logs(run_id) == expected(20_000)
    sent = [body for method, path, body in line.asked if method == "PUT" and path.endswith("/logs")]
    assert len(sent) < 40 and max(map(len, sent)) <= PART


async def test_no_byte_is_lost_or_doubled_while_the_server_is_away(cluster: Cluster, line: Line) -> None:
    run_id = await python(cluster, LINES.format(200) + "; n % 10 or __import__('time').sleep(0.05)")
    for _ in range(3):
        line.is_cut = True
        asked = len(line.asked)
        await cluster.until(lambda asked=asked: len(line.asked) > asked + 2, "the worker to ask in vain")
        line.is_cut = False
    await cluster.ended(run_id)
    assert await cluster.user.get_logs(run_id) == expected(200)


async def test_no_byte_is_doubled_where_answers_are_lost(cluster: Cluster, line: Unlucky) -> None:
    line.loses = lambda n: n % 2 == 1
    run_id = await python(cluster, LINES.format(50_000))
    await cluster.ended(run_id)
    assert await cluster.user.get_logs(run_id) == expected(50_000)


async def test_a_server_that_has_lost_the_log_is_sent_it_anew(
    cluster: Cluster, server: Context, tmp_path: Path
) -> None:
    run_id = await cluster.submit(f"printf one; until [ -e {tmp_path}/go ]; do sleep 0.02; done; printf two")

    async def half() -> bool:
        return await cluster.user.get_logs(run_id) == b"one"

    await cluster.until(half, "the first half of the log")
    async with server.database.connection() as connection:
        await connection.execute("DELETE FROM logs WHERE run_id = %s", [run_id])
    (tmp_path / "go").touch()
    await cluster.ended(run_id)
    assert await cluster.user.get_logs(run_id) == b"onetwo"


async def test_a_proxy_that_takes_only_small_bodies_gets_small_ones(cluster: Cluster, line: Unlucky) -> None:
    line.largest = 50_000
    run_id = await python(cluster, LINES.format(20_000))
    await cluster.ended(run_id)
    assert await cluster.user.get_logs(run_id) == expected(20_000)


@pytest.mark.parametrize("status", [401, 403, 404, 418])
async def test_a_log_that_is_refused_for_good_costs_the_run_nothing(
    cluster: Cluster, line: Unlucky, status: int
) -> None:
    asked: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json={"code": "no", "detail": "no"}, request=request)

    line.answers = refuse
    run_id = await python(cluster, LINES.format(5000) + "; n % 1000 or __import__('time').sleep(0.3)")
    assert (await cluster.ended(run_id))["state"] == "COMPLETED"
    assert len(asked) == 1


async def test_beyond_the_limit_of_the_server_the_file_does_not_grow(
    cluster: Cluster, server: Context, tmp_path: Path
) -> None:
    object.__setattr__(server, "log_limit", 1 * MB)
    program = "printf %03000000d 0; until [ -e GO/go ]; do sleep 0.02; done; printf %050000000d 0".replace(
        "GO", str(tmp_path)
    )
    run_id = await cluster.submit(program)

    async def cut() -> bool:
        return b"the log was cut here" in await cluster.user.get_logs(run_id)

    await cluster.until(cut, "the server to take no more")
    (path,) = cluster.place.folder.glob("attempts/*/log")
    await cluster.until(lambda: path.stat().st_size == 3_000_000, "all of the first part")
    (tmp_path / "go").touch()
    sizes: set[int] = set()
    while path.exists():
        sizes.add(path.stat().st_size)
        await asyncio.sleep(0.01)
    assert max(sizes) < 3_000_000 + 20_000
    assert (await cluster.ended(run_id))["state"] == "COMPLETED"
    said = await cluster.user.get_logs(run_id)
    assert said.count(b"[gyoza:") == 1 and len(said) < 1 * MB + 200


async def test_a_server_that_takes_no_logs_holds_no_attempt_for_ever(
    cluster: Cluster, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SENT_WITHIN_S", 0.3)
    line.hold = is_log
    run_id = await cluster.submit("echo lost")
    assert (await cluster.ended(run_id))["state"] == "COMPLETED"
    assert line.held.is_set()


async def test_a_log_that_is_stuck_is_in_nobodys_way(cluster: Cluster, line: Line, tmp_path: Path) -> None:
    line.hold = is_log
    program = 'echo stuck; echo \'{"type": "INFO", "msg": "heard"}\' >>"$GYOZA_IO_DIR/events.ndjson"; '
    run_id = await cluster.submit(program + f"until [ -e {tmp_path}/go ]; do sleep 0.02; done")
    await line.held.wait()

    async def heard() -> bool:
        return ("INFO", "heard") in await cluster.told(run_id)

    await cluster.until(heard, "the event of an op whose log is stuck")
    beats = sum(path == "/workers/one" for _, path, _ in line.asked)
    await cluster.until(lambda: sum(path == "/workers/one" for _, path, _ in line.asked) > beats, "a heartbeat")
    line.hold = lambda request: False
    line.go_on.set()
    (tmp_path / "go").touch()
    await cluster.ended(run_id)
    assert await cluster.user.get_logs(run_id) == b"stuck\n"


async def test_a_flood_holds_up_no_other_log_no_heartbeat_and_no_cancel(cluster: Cluster, line: Line) -> None:
    flood = await cluster.submit("exec yes flood", execution={"cancel_grace_s": 5})

    async def floods() -> bool:
        return len(await cluster.user.get_logs(flood)) > 4 * MB

    await cluster.until(floods, "a flood")
    other = await cluster.run("echo small")
    assert await cluster.user.get_logs(other["id"]) == b"small\n"
    began = time.monotonic()
    await cluster.cancelled(flood)
    assert time.monotonic() - began < 15
    said = (await cluster.user.get_logs(flood)).partition(b"\n[gyoza")[0]
    assert (b"flood\n" * (len(said) // 6 + 1)).startswith(said)
