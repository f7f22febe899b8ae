"""Keys as people use them: caught by a shell, given to a machine, replaced, revoked; and in no log."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gyoza.client import GyozaClient, Unauthorized

from .stage import Stage, until

COPY = 'cat "$(sed -n \'s/.*"file": *"\\([^"]*\\)".*/\\1/p\' "$GYOZA_IO_DIR/inputs.json")" >"$GYOZA_IO_DIR/copy"'
OUTPUTS = 'echo \'{"copy": "copy"}\' >"$GYOZA_IO_DIR/outputs.json"'


Catch = Callable[..., str]


@pytest.fixture
def talkative(stage: Stage) -> Stage:
    """Two server processes that log all they can."""
    stage.server("--workers", "2", "--log-level", "debug")
    return stage


@pytest.fixture
def catch(stage: Stage) -> Iterator[Catch]:
    """`KEY=$(gyoza keys create ...)`: the key. In the end none of them, nor the server's own, is in any log."""
    caught: list[str] = []

    def create(*options: str) -> str:
        command = stage.run("keys", "create", *options)
        assert command.ends() == 0, command.said
        caught.extend(line for line in command.said.splitlines() if line.startswith("gyoza_"))
        command.output.unlink()
        return caught[-1]

    yield create
    caught.append((stage.data / "api-key").read_text().strip())
    logs = {path.name: path.read_text(errors="replace") for path in stage.folder.rglob("*.log")}
    assert "postgres.log" in logs and len(logs) > 1
    assert [name for name, text in logs.items() for key in caught if key in text] == []


def test_a_worker_needs_no_more_than_a_key_of_its_own(talkative: Stage, catch: Catch, tmp_path: Path):
    """Its bundle, the files among its inputs, those among its outputs, and all it has to say."""
    key = catch("of box", "--worker", "box")
    worker = talkative.worker("box", "--log-level", "debug", GYOZA_API_KEY=key)
    files = {"inputs": {"file": {"type": "file"}}, "outputs": {"copy": {"type": "file"}}}
    op = talkative.op("copies", f"{COPY}; {OUTPUTS}", **files)
    (tmp_path / "words").write_text("hello")
    sent = talkative.client.upload_file(tmp_path / "words")
    run = talkative.client.create_run_from_definition(op, {"file": sent["uri"]})
    ended = talkative.ended(run["id"])
    assert ended["state"] == "COMPLETED", ended
    talkative.client.download_file(ended["outputs"]["copy"]["uri"], tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "hello"
    assert worker.stop() == 0
    assert key not in worker.said


def test_a_worker_with_the_key_of_another_one_is_told_so(talkative: Stage, catch: Catch):
    key = catch("of box", "--worker", "box")
    refused = talkative.run("worker", "start", "--name", "other", GYOZA_API_KEY=key)
    refused.refuses("The key 'of box' speaks for worker 'box' alone, not for 'other'")


def test_a_revoked_key_is_dead_on_all_server_processes_within_seconds(talkative: Stage, catch: Catch):
    key = catch("ci")
    client = GyozaClient(talkative.url, key)
    for _ in range(20):
        client.list_runs()
    assert talkative.run("keys", "revoke", "ci").ends() == 0
    revoked = time.monotonic()
    until(lambda: is_refused(talkative.url, key), "it is refused")
    assert all(is_refused(talkative.url, key) for _ in range(20)), "by both processes"
    assert time.monotonic() - revoked < 30
    client.close()


def is_refused(url: str, key: str) -> bool:
    """Over a new connection, which any of the processes may take."""
    with GyozaClient(url, key) as client:
        try:
            client.list_runs()
        except Unauthorized:
            return True
    return False


def test_the_key_of_the_server_is_replaced_by_a_new_start(stage: Stage, catch: Catch):
    server = stage.server()
    old = (stage.data / "api-key").read_text().strip()
    admin = catch("me", "--scope", "admin")
    assert server.stop() == 0
    (stage.data / "api-key").unlink()
    stage.server()
    assert is_refused(stage.url, old)
    assert not is_refused(stage.url, admin)
    assert (stage.data / "api-key").read_text().strip() != old
    assert stage.run("keys", "ls").ends() == 0
