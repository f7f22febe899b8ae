"""A worker shows whether it lives: its loops, their pulse, its health over HTTP, and what a service manager hears."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import httpx
import pytest

from gyoza.models.errors import StartUpError
from gyoza.worker import alive as alive_module
from gyoza.worker.alive import alive
from gyoza.worker.health import HOST
from gyoza.worker.pulse import TRY_S, Pulse
from gyoza.worker.systemd import feed_watchdog, notify, watchdog_s

from .cluster import Cluster, Line

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "run-under-systemd.md"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def health(port: int, path: str = "/health") -> httpx.Response:
    """Asked in a way that holds up the event loop."""
    return httpx.get(f"http://{HOST}:{port}{path}", timeout=10)


def test_a_loop_that_does_not_come_round_in_time_is_stuck_and_named() -> None:
    now = 0.0
    pulse = Pulse(lambda: now)
    assert pulse.stuck() == []
    pulse.turn("one", 10)
    pulse.turn("other", 30)
    now = 10
    assert pulse.stuck() == []
    now = 12
    assert pulse.stuck() == ["one stood still for 12 s"]
    pulse.turn("one", 10)
    assert pulse.stuck() == []


async def test_the_health_turns_bad_while_the_event_loop_is_stuck_and_good_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alive_module, "STUCK_S", 0.5)
    monkeypatch.setattr(alive_module, "TICK_S", 0.01)
    port, until = free_port(), monotonic() + 20
    async with alive(Pulse(), port, lambda: {"holds": 3}):
        while (bad := health(port)).status_code == 200:
            assert monotonic() < until, "it stayed good"
        assert bad.status_code == 503
        assert (bad.json()["status"], bad.json()["holds"]) == ("stuck", 3)
        assert "the event loop stood still" in bad.json()["detail"]
        while (good := await asyncio.to_thread(health, port)).status_code == 503:
            assert monotonic() < until, "it stayed bad"
        assert good.json() == {"status": "ok", "holds": 3}


async def test_elsewhere_there_is_nothing_and_without_a_port_no_answer() -> None:
    port = free_port()
    async with alive(Pulse(), None, dict):
        with pytest.raises(httpx.ConnectError):
            health(port)
    async with alive(Pulse(), port, dict):
        assert health(port, "/").status_code == 404


async def test_a_port_that_is_taken_is_said_in_one_sentence() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartUpError, match=rf"Cannot answer on 127.0.0.1 port {port}: .* --health-port"):
            async with alive(Pulse(), port, dict):
                pass


async def test_a_workers_loops_go_round_also_while_its_server_is_away(cluster: Cluster, line: Line) -> None:
    """Their time is as long as a try may take: each try counts, answered or not."""
    turns: list[tuple[str, float]] = []
    cluster.agent.pulse.turn = lambda loop, within_s: turns.append((loop, within_s))  # type: ignore[method-assign]
    both = {("the heartbeats", TRY_S), ("asking for work", TRY_S)}
    await cluster.run()
    await cluster.until(lambda: set(turns) == both, "both loops go round")
    line.is_cut = True
    turns.clear()
    await cluster.until(lambda: turns.count(("the heartbeats", TRY_S)) > 1, "it tries again although nobody answers")
    line.is_cut = False


# What a service manager hears


@pytest.fixture
async def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield line


def test_what_is_said_arrives_as_one_message(manager: socket.socket) -> None:
    notify("READY=1", "STATUS=It works")
    assert manager.recv(1000) == b"READY=1\nSTATUS=It works"


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"gyoza-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1")
        assert line.recv(100) == b"READY=1"


def test_a_manager_that_does_not_listen_costs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")


def test_only_the_process_that_is_meant_feeds_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_s() == 30
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_s() == 30
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_s() is None
    monkeypatch.delenv("WATCHDOG_USEC")
    assert watchdog_s() is None


async def test_the_watchdog_hears_nothing_while_a_loop_is_stuck(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    now = 0.0
    pulse = Pulse(lambda: now)
    pulse.turn("one", 1)
    feeding = asyncio.create_task(feed_watchdog(pulse))
    for _ in range(3):
        assert await asyncio.to_thread(manager.recv, 100) == b"WATCHDOG=1"
    now = 2.0
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:  # what was said before it was stuck, and then nothing for as long as several turns take
            await asyncio.sleep(0.1)
            manager.recv(100)
    feeding.cancel()


def test_systemd_accepts_the_unit_that_the_docs_show(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("this system has no systemd")
    (found,) = re.findall(r"```ini\n(.*?)```", DOCS.read_text(), re.DOTALL)
    unit = tmp_path / "gyoza-worker.service"
    unit.write_text(found.replace("/opt/gyoza/bin/gyoza", "/bin/true"))
    told = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "gyoza-worker" not in told.stderr, told.stderr
