"""A worker as a service: what systemd hears of a real process, from its start to its end."""

import socket
from pathlib import Path

import pytest

from .stage import Stage


def test_a_worker_says_when_it_is_ready_that_it_lives_and_that_it_leaves(stage: Stage, tmp_path: Path) -> None:
    heard = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(40)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        worker = stage.run("worker", "start", "--name", "box", **told)
        worker.says("Waiting for the server")
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):  # without a server it is not ready
            manager.recv(1000)
        stage.server()
        manager.settimeout(40)
        while b"READY=1\nSTATUS=Worker box works for" not in heard or b"WATCHDOG=1" not in heard:
            heard += manager.recv(1000)
        assert "box" in [each["id"] for each in stage.client.list_workers()]
        assert worker.stop(within_s=20) == 0
        while b"STOPPING=1" not in heard:
            heard += manager.recv(1000)
