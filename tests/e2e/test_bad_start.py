"""What cannot start or cannot be reached says so in one sentence: what, which one, what now."""

import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psycopg
import pytest

from .stage import Stage, free_port, until

IMPATIENT = "import sys; import gyoza.worker.process as p; p.FIRST_CONTACT_S = 1.0; from gyoza.cli import main; main()"


@pytest.fixture(scope="module")
def beside(served: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Another user of the machine: the same server by its URL, but a folder of its own, so no key."""
    stage = Stage(tmp_path_factory.mktemp("beside"))
    stage.environ["GYOZA_SERVER_URL"] = served.url
    yield stage
    assert stage.end() == []


SERVER, WORKER, LIST = ("server", "start"), ("worker", "start", "--name", "w"), ("runs", "ls")
MIGRATE = ("db", "migrate")


def test_a_client_with_a_wrong_key_is_told_where_to_check_it(beside: Stage):
    refused = beside.run(*LIST, GYOZA_API_KEY="wrong")
    refused.refuses(f"The Gyoza server at {beside.environ['GYOZA_SERVER_URL']}", "does not accept", code=2)


def test_a_client_without_a_key_is_asked_for_it(beside: Stage, tmp_path: Path):
    refused = beside.run(*LIST, GYOZA_DATA_DIR=str(tmp_path))
    refused.refuses("asks for an API key", "--api-key", "GYOZA_API_KEY", code=2)


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_worker_with_a_wrong_key_or_none_is_told_where_to_find_it(beside: Stage, tmp_path: Path, key: str):
    refused = beside.run(*WORKER, GYOZA_API_KEY=key, GYOZA_DATA_DIR=str(tmp_path))
    refused.refuses(beside.environ["GYOZA_SERVER_URL"], "set GYOZA_API_KEY", "api-key")


def test_a_port_that_is_taken_is_named(beside: Stage):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        beside.run("up", GYOZA_PORT=port).refuses(f"127.0.0.1 port {port}", "already in use", "--port")


@pytest.mark.parametrize("command", [SERVER, MIGRATE], ids=" ".join)
def test_a_data_folder_in_use_is_named_with_who_uses_it(served: Stage, command: tuple[str, ...]):
    refused = served.run(*command, GYOZA_PORT=str(free_port()))
    refused.refuses(f"Data folder {served.data} is in use by another Gyoza server (pid ", "GYOZA_DATA_DIR")


@pytest.mark.parametrize("command", [SERVER, WORKER], ids=" ".join)
def test_a_data_folder_that_is_a_file_is_named(served: Stage, tmp_path: Path, command: tuple[str, ...]):
    file = tmp_path / "file"
    file.write_text("not a folder")
    environ = {"GYOZA_DATA_DIR": str(file), "GYOZA_PORT": str(free_port())}
    served.run(*command, **environ).refuses(str(file), "GYOZA_DATA_DIR")


@pytest.mark.parametrize("command", [SERVER, WORKER], ids=" ".join)
def test_a_data_folder_that_cannot_be_made_is_named(served: Stage, command: tuple[str, ...]):
    """Not even root can make a folder there."""
    environ = {"GYOZA_DATA_DIR": "/proc/gyoza", "GYOZA_PORT": str(free_port())}
    served.run(*command, **environ).refuses("/proc/gyoza", "GYOZA_DATA_DIR")


def test_what_is_wrong_with_a_database_url_is_said_without_its_password(beside: Stage):
    wrong = {
        "mysql://gyoza:s3cr3t@localhost/gyoza": "is not one that PostgreSQL understands",
        "postgresql://gyoza:s3cr3t@localhost:port/gyoza": "port",
        f"postgresql://gyoza:s3cr3t@127.0.0.1:{free_port()}/gyoza": "refused",
        "postgresql://gyoza:s3cr3t@nowhere.invalid/gyoza": "nowhere.invalid",
    }
    refused = [beside.run(*SERVER, GYOZA_DATABASE_URL=url, GYOZA_PORT=str(free_port())) for url in wrong]
    for command, said in zip(refused, wrong.values(), strict=True):
        assert "s3cr3t" not in command.refuses("database", said, "GYOZA_DATABASE_URL")


def test_a_database_that_does_not_exist_is_named(beside: Stage, database_url: str):
    head, _, query = database_url.partition("?")
    url = f"{head.rpartition('/')[0]}/nosuch?{query}"
    refused = beside.run(*SERVER, GYOZA_DATABASE_URL=url, GYOZA_PORT=str(free_port()))
    refused.refuses('database "nosuch" does not exist', "GYOZA_DATABASE_URL")


@pytest.mark.parametrize("command", [SERVER, MIGRATE], ids=" ".join)
def test_a_database_newer_than_the_program_is_left_alone(beside: Stage, database_url: str, command: tuple[str, ...]):
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    refused = beside.run(*command, GYOZA_DATABASE_URL=database_url, GYOZA_PORT=str(free_port()))
    refused.refuses("newer than this program", "9999", "install")


def test_a_worker_waits_a_while_for_its_server_and_then_says_which_one_it_missed(beside: Stage):
    url = f"http://127.0.0.1:{free_port()}"
    beside.python = (sys.executable, "-c", IMPATIENT)
    try:
        worker = beside.run(*WORKER, "--server-url", url)
        waiting = f"Waiting for the server at {url}"
        worker.refuses(f"No Gyoza server answers at {url}", "--server-url", after=waiting)
    finally:
        beside.python = (sys.executable, "-m", "gyoza.cli")


def test_a_client_of_a_dead_server_is_told_how_to_start_one(beside: Stage):
    url = f"http://127.0.0.1:{free_port()}"
    beside.run(*LIST, "--server-url", url).refuses(f"No Gyoza server answers at {url}", "gyoza up", code=4)


def test_a_server_url_that_is_none_is_named(beside: Stage):
    wrong = ["127.0.0.1:5555", "ftp://127.0.0.1", "http://", "http://[::1"]
    refused = {url: beside.run(*LIST, GYOZA_SERVER_URL=url) for url in wrong}
    refused["http://:80"] = beside.run(*WORKER, GYOZA_SERVER_URL="http://:80")
    for url, command in refused.items():
        command.refuses(url, "is not the URL of a server", code=2)


class _SomethingElse(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>It works</h1>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("command", [LIST, WORKER], ids=" ".join)
def test_a_url_where_something_else_answers_is_named(beside: Stage, command: tuple[str, ...]):
    with HTTPServer(("127.0.0.1", 0), _SomethingElse) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        refused = beside.run(*command, GYOZA_SERVER_URL=url, GYOZA_API_KEY="any")
        refused.refuses(url, "no Gyoza server", code=2 if command[0] == "runs" else 1)
        other.shutdown()


def test_a_setting_that_cannot_be_is_named(beside: Stage):
    wrong = [
        ("GYOZA_PORT", "many", SERVER),
        ("GYOZA_LEASE_S", "soon", SERVER),
        ("GYOZA_HOST", "nowhere.invalid", SERVER),
        ("GYOZA_LOG_LEVEL", "loud", SERVER),
        ("GYOZA_LOG_LEVEL", "loud", WORKER),
        ("GYOZA_RUNTIME", "podman", WORKER),
        ("GYOZA_RUNTIME", "podman", ("up",)),
        ("GYOZA_WORKER_NAME", "a/b", WORKER[:2]),
    ]
    port = {"GYOZA_PORT": str(free_port())}
    refused = [beside.run(*command, **{**port, name: value}) for name, value, command in wrong]
    for command, (_, value, _) in zip(refused, wrong, strict=True):
        command.refuses(value)


def test_a_cluster_whose_worker_cannot_start_says_why_and_leaves_nothing(stage: Stage):
    up = stage.run("up", GYOZA_RUNTIME="docker", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert up.ends() == 1
    assert "Docker" in up.said and "--runtime process" in up.said and "Traceback" not in up.said
    until(lambda: not (stage.data / "postgres" / "postmaster.pid").exists(), "PostgreSQL has ended")
