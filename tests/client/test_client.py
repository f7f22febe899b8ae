"""Each test runs on the sync and on the async client, against a small HTTP server that really listens."""

import hashlib
import inspect
import io
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import gyoza.client
from gyoza.client import (
    AsyncGyozaClient,
    BadRequest,
    Conflict,
    DownloadBroken,
    GyozaClient,
    GyozaUnreachable,
    InvalidSetting,
    NoAnswer,
    NoServer,
    NotFound,
    NotGyoza,
    ResponseError,
    RunCancelled,
    RunFailed,
    ServerFailed,
    Unauthorized,
    Unprocessable,
)
from gyoza.client.local import data_dir
from gyoza.models.errors import GyozaError

PROBLEM = {"type": "about:blank", "title": "Not Found", "status": 404, "code": "run_not_found"}


class Tape:
    """What the server was asked, and what it is to answer next; without an order it answers 200 `{}`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[Response] = []
        self.url = ""

    def answer(self, body: Any, status: int = 200) -> None:
        self.answers.append(JSONResponse(body, status))

    @property
    def last(self) -> tuple[str, str, Any]:
        method, target, _, body = self.asked[-1]
        return method, target, json.loads(body) if body else None

    async def play(self, request: Request) -> Response:
        target = request.scope["raw_path"].decode()
        if request.url.query:
            target += "?" + request.url.query
        self.asked.append((request.method, target, dict(request.headers), await request.body()))
        return self.answers.pop(0) if self.answers else JSONResponse({})


@pytest.fixture(scope="module")
def machine() -> Iterator[Tape]:
    tape = Tape()
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{rest:path}", tape.play, methods=methods)])
    listening = socket.create_server(("127.0.0.1", 0))
    tape.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield tape
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def tape(machine: Tape, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tape:
    for name in ("GYOZA_SERVER_URL", "GYOZA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path / "nothing-here"))
    machine.asked.clear()
    machine.answers.clear()
    return machine


@pytest.fixture
async def client(tape: Tape, kind: Any) -> AsyncIterator[Any]:
    made = kind(tape.url, "secret")
    yield made
    await done(made.close())


async def done(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


SHAPES: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[str, str, Any]]] = [
    ("upsert_definition", ({"id": "a"},), {}, ("POST", "/definitions", {"id": "a"})),
    ("get_definition", ("a b/c",), {}, ("GET", "/definitions/a%20b%2Fc", None)),
    ("get_definition", ("a", "1.2"), {}, ("GET", "/definitions/a?version=1.2", None)),
    ("create_run", ("img", {"x": 1}), {}, ("POST", "/runs", {"image": "img", "inputs": {"x": 1}, "priority": 5})),
    (
        "create_run",
        ("img", {}),
        {
            "priority": 0,
            "constraints": {"cpu": 2},
            "retry_policy": {"max_attempts": 3},
            "event_delivery": {"topic": "t"},
        },
        (
            "POST",
            "/runs",
            {
                "image": "img",
                "inputs": {},
                "priority": 0,
                "constraints": {"cpu": 2},
                "retry_policy": {"max_attempts": 3},
                "event_delivery": {"topic": "t"},
            },
        ),
    ),
    (
        "create_run_from_definition",
        ("a", {"x": 1}),
        {"version": "2"},
        ("POST", "/definitions/a/runs", {"inputs": {"x": 1}, "priority": 5, "version": "2"}),
    ),
    (
        "create_run",
        ("img", {}),
        {"tags": ["a"], "run_at": "2030-01-01T00:00:00Z", "timeouts": {"run_s": 5}, "delete_after_s": 0},
        (
            "POST",
            "/runs",
            {
                "image": "img",
                "inputs": {},
                "priority": 5,
                "tags": ["a"],
                "run_at": "2030-01-01T00:00:00Z",
                "timeouts": {"run_s": 5},
                "delete_after_s": 0,
            },
        ),
    ),
    (
        "create_run_from_definition",
        ("a", {}),
        {
            "tags": [],
            "run_at": datetime(2030, 1, 1, tzinfo=UTC),
            "timeouts": {},
            "retry_policy": {"max_attempts": 2},
            "delete_after_s": 1.5,
        },
        (
            "POST",
            "/definitions/a/runs",
            {
                "inputs": {},
                "priority": 5,
                "tags": [],
                "run_at": "2030-01-01T00:00:00+00:00",
                "timeouts": {},
                "retry_policy": {"max_attempts": 2},
                "delete_after_s": 1.5,
            },
        ),
    ),
    ("create_runs", ([{"image": "a"}],), {}, ("POST", "/runs/batch", {"runs": [{"image": "a"}]})),
    ("replay_run", ("r 1",), {}, ("POST", "/runs/r%201/replay", {})),
    (
        "replay_run",
        ("r1",),
        {
            "priority": 0,
            "tags": ["a"],
            "run_at": "x",
            "timeouts": {"run_s": 5},
            "retry_policy": {},
            "delete_after_s": 0,
        },
        (
            "POST",
            "/runs/r1/replay",
            {
                "priority": 0,
                "tags": ["a"],
                "run_at": "x",
                "timeouts": {"run_s": 5},
                "retry_policy": {},
                "delete_after_s": 0,
            },
        ),
    ),
    ("get_run", ("r1",), {}, ("GET", "/runs/r1", None)),
    ("list_runs", (), {}, ("GET", "/runs", None)),
    (
        "list_runs",
        (),
        {"limit": 2, "state": "FAILED", "starting_after": "r1", "created": {"gte": 5}},
        ("GET", "/runs?limit=2&starting_after=r1&state=FAILED&created%5Bgte%5D=5", None),
    ),
    (
        "list_runs",
        (),
        {"tag": ["a", "b"], "reason": "op_error", "worker_id": "w 1", "submitted_by": "me"},
        ("GET", "/runs?tag=a&tag=b&reason=op_error&worker_id=w+1&submitted_by=me", None),
    ),
    ("list_runs", (), {"tag": "a"}, ("GET", "/runs?tag=a", None)),
    ("cancel_runs", (), {"tag": "a"}, ("POST", "/runs/cancel?tag=a", None)),
    (
        "cancel_runs",
        (),
        {"created": {"gte": 5}, "state": "PENDING", "tag": ["a", "b"], "dry_run": True},
        ("POST", "/runs/cancel?created%5Bgte%5D=5&state=PENDING&tag=a&tag=b&dry_run=true", None),
    ),
    (
        "retry_runs",
        (),
        {"op_definition": "op", "image": "i", "reason": "op_error", "worker_id": "w", "submitted_by": "me"},
        ("POST", "/runs/retry?op_definition=op&image=i&reason=op_error&worker_id=w&submitted_by=me", None),
    ),
    ("retry_runs", (), {"state": "FAILED", "tag": None}, ("POST", "/runs/retry?state=FAILED&tag=", None)),
    ("update_run", ("r1",), {"pinned": False}, ("PATCH", "/runs/r1", {"pinned": False})),
    ("disable_definition", ("a/b",), {}, ("POST", "/definitions/a%2Fb/disable", None)),
    ("enable_definition", ("a",), {}, ("POST", "/definitions/a/enable", None)),
    ("delete_definition", ("a",), {}, ("DELETE", "/definitions/a", None)),
    ("update_run", ("r1",), {"state": "RUNNING"}, ("PATCH", "/runs/r1", {"state": "RUNNING"})),
    ("update_run", ("r1",), {"outputs": {}, "priority": 0}, ("PATCH", "/runs/r1", {"outputs": {}, "priority": 0})),
    ("cancel_run", ("r1",), {}, ("POST", "/runs/r1/cancel", None)),
    ("retry_run", ("r1",), {}, ("POST", "/runs/r1/retry", None)),
    ("get_events", ("r1",), {}, ("GET", "/runs/r1/events", None)),
    ("get_events", ("r1", 0), {}, ("GET", "/runs/r1/events?after=0", None)),
    ("add_event", ("r1", "INFO", "hi"), {}, ("POST", "/runs/r1/events", {"type": "INFO", "msg": "hi"})),
    (
        "add_event",
        ("r1", "COMPLETED", "", {"outputs": {}}),
        {},
        ("POST", "/runs/r1/events", {"type": "COMPLETED", "msg": "", "payload": {"outputs": {}}}),
    ),
    ("get_logs", ("r1",), {}, ("GET", "/runs/r1/logs?offset=0", None)),
    ("get_logs", ("r1", 2, 7), {}, ("GET", "/runs/r1/logs?attempt=2&offset=7", None)),
    ("get_worker", ("w1",), {}, ("GET", "/workers/w1", None)),
    ("drain_worker", ("w1",), {}, ("POST", "/workers/w1/drain", None)),
    ("resume_worker", ("w1",), {}, ("POST", "/workers/w1/resume", None)),
    ("remove_worker", ("w1",), {}, ("DELETE", "/workers/w1", None)),
    ("delete_file", ("gyoza://files/f1",), {}, ("DELETE", "/files/f1", None)),
    ("create_key", ("ci",), {}, ("POST", "/keys", {"name": "ci"})),
    (
        "create_key",
        ("box",),
        {"scopes": ["worker"], "worker": "w1", "expires_in_s": 60},
        ("POST", "/keys", {"name": "box", "scopes": ["worker"], "worker": "w1", "expires_in_s": 60}),
    ),
    ("revoke_key", ("k/1",), {}, ("DELETE", "/keys/k%2F1", None)),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "asked"), SHAPES)
async def test_a_method_sends_the_request_that_the_contract_names(
    client: Any, tape: Tape, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], asked: tuple[str, str, Any]
) -> None:
    await done(getattr(client, name)(*args, **kwargs))
    assert tape.last == asked


@pytest.mark.parametrize("name", ["list_definitions", "get_revisions", "get_attempts", "list_workers", "list_keys"])
async def test_a_bare_list_is_decoded(client: Any, tape: Tape, name: str) -> None:
    tape.answer([{"id": "a"}])
    args = () if name.startswith("list") else ("a",)
    assert await done(getattr(client, name)(*args)) == [{"id": "a"}]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "asked"),
    [
        ("register_worker", ("w 1", {"instance": "i"}), {}, ("PUT", "/workers/w%201", {"instance": "i"})),
        ("claim", ("w1", {"max": 1, "wait_s": 20}), {}, ("POST", "/workers/w1/claim", {"max": 1, "wait_s": 20})),
        ("report", ("w1", {"reports": []}), {}, ("POST", "/workers/w1/reports", {"reports": []})),
        (
            "put_logs",
            ("r1", 2, b"7"),
            {"offset": 3, "lease_token": "L"},
            ("PUT", "/runs/r1/attempts/2/logs?offset=3", 7),
        ),
    ],
)
async def test_a_worker_reaches_its_server_through_the_async_client(
    tape: Tape, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], asked: tuple[str, str, Any]
) -> None:
    async with AsyncGyozaClient(tape.url) as client:
        await getattr(client, name)(*args, **kwargs)
    assert tape.last == asked
    if name == "put_logs":
        assert tape.asked[-1][2]["gyoza-lease"] == "L"


async def test_a_claim_may_be_held_longer_than_the_time_out(kind: Any) -> None:
    call = gyoza.client.calls.claim("w1", {"wait_s": 25})
    assert call.wait_s == 25


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("create_run", ("img", {})),
        ("create_run_from_definition", ("a", {})),
        ("create_runs", ([],)),
        ("replay_run", ("r1",)),
    ],
)
async def test_a_call_that_creates_runs_may_carry_an_idempotency_key(
    client: Any, tape: Tape, name: str, args: tuple[Any, ...]
) -> None:
    await done(getattr(client, name)(*args, idempotency_key="k-1"))
    await done(getattr(client, name)(*args))
    assert [headers.get("idempotency-key") for _, _, headers, _ in tape.asked] == ["k-1", None]


async def test_models_are_sent_as_their_dictionaries(client: Any, tape: Tape) -> None:
    class Constraints:
        def to_dict(self) -> dict[str, Any]:
            return {"cpu": 2}

    await done(client.create_run("img", {}, constraints=Constraints()))
    assert tape.last[2]["constraints"] == {"cpu": 2}


async def test_what_json_forbids_reaches_the_server_which_names_the_place(client: Any, tape: Tape) -> None:
    tape.answer(
        {"status": 422, "detail": "/inputs/x: NaN", "code": "malformed", "errors": [{"pointer": "/inputs/x"}]}, 422
    )
    with pytest.raises(Unprocessable) as caught:
        await done(client.create_run("img", {"x": float("nan"), "y": "\ud800"}))
    assert caught.value.errors == [{"pointer": "/inputs/x"}]
    assert b'{"x":NaN,"y":"\\ud800"}' in tape.asked[-1][3]


async def test_the_key_goes_with_every_request(client: Any, tape: Tape) -> None:
    await done(client.get_run("r1"))
    assert tape.asked[-1][2]["x-api-key"] == "secret"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, BadRequest),
        (404, NotFound),
        (409, Conflict),
        (422, Unprocessable),
        (500, ServerFailed),
        (418, ResponseError),
    ],
)
async def test_every_refusal_is_an_httpx_error_with_the_problem(
    client: Any, tape: Tape, status: int, expected: type[ResponseError]
) -> None:
    tape.answer({**PROBLEM, "status": status, "detail": "OpRun 'r1' not found"}, status)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await done(client.get_run("r1"))
    error = caught.value
    assert type(error) is expected
    assert isinstance(error, GyozaError)
    assert (error.code, error.detail, str(error)) == ("run_not_found", "OpRun 'r1' not found", "OpRun 'r1' not found")
    assert (error.status_code, error.response.status_code, error.errors) == (status, status, [])
    assert error.request.method == "GET"


async def test_a_refusal_without_a_problem_document_is_a_sentence_too(client: Any, tape: Tape) -> None:
    tape.answers.append(Response("<h1>Bad Gateway</h1>", 502))
    with pytest.raises(ServerFailed) as caught:
        await done(client.get_run("r1"))
    assert caught.value.code == "http_502"
    assert str(caught.value) == f"{tape.url}/runs/r1 answered 502 Bad Gateway"


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1, 2]", b"\xff\xfe"])
async def test_an_answer_that_is_not_gyozas_says_so(client: Any, tape: Tape, body: bytes) -> None:
    tape.answers.append(Response(body, 200))
    with pytest.raises(NotGyoza, match="is no Gyoza server: check --server-url / GYOZA_SERVER_URL"):
        await done(client.get_run("r1"))


async def test_a_wrong_key_says_where_keys_come_from(client: Any, tape: Tape) -> None:
    tape.answer({"detail": "Unknown API key", "code": "unauthorized"}, 401)
    with pytest.raises(Unauthorized) as caught:
        await done(client.get_run("r1"))
    assert str(caught.value) == (
        f"The Gyoza server at {tape.url} does not accept this API key: check --api-key / GYOZA_API_KEY"
    )
    assert (caught.value.code, caught.value.detail) == ("unauthorized", "Unknown API key")


async def test_a_missing_key_says_how_to_give_one(tape: Tape, kind: Any) -> None:
    client = kind(tape.url)
    tape.answer({"detail": "Missing API key", "code": "unauthorized"}, 401)
    with pytest.raises(Unauthorized, match="asks for an API key: give it with --api-key or GYOZA_API_KEY"):
        await done(client.get_run("r1"))
    await done(client.close())


async def test_a_dead_server_is_one_sentence(tape: Tape, kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    client = kind(url)
    with pytest.raises(NoServer) as caught:
        await done(client.get_run("r1"))
    await done(client.close())
    assert str(caught.value) == (
        f"No Gyoza server answers at {url}: start one with `gyoza up`, "
        "or point --server-url / GYOZA_SERVER_URL at yours"
    )
    for base in (GyozaUnreachable, GyozaError, httpx.ConnectError, httpx.TransportError):
        assert isinstance(caught.value, base)


async def test_a_silent_server_is_one_sentence(tape: Tape, kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = kind(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.1 s") as caught:
            await done(client.get_run("r1"))
        await done(client.close())
    assert isinstance(caught.value, httpx.TimeoutException)
    assert isinstance(caught.value, GyozaUnreachable)


@pytest.mark.parametrize("url", ["localhost:5555", "ftp://here", "http://", "http://a:b:c", "nonsense"])
def test_a_url_that_is_none_is_refused_at_once(tape: Tape, kind: Any, url: str) -> None:
    with pytest.raises(InvalidSetting, match="is not the URL of a server"):
        kind(url)


def test_a_key_that_cannot_be_one_is_refused_at_once(tape: Tape, kind: Any) -> None:
    with pytest.raises(InvalidSetting, match="check GYOZA_API_KEY"):
        kind(tape.url, "ключ")


def test_what_is_said_beats_the_environment_beats_the_default(
    tape: Tape, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind().address.url == "http://localhost:5555"
    monkeypatch.setenv("GYOZA_SERVER_URL", "http://env:1/")
    monkeypatch.setenv("GYOZA_API_KEY", "env-key")
    assert (kind().address.url, kind().address.api_key) == ("http://env:1", "env-key")
    made = kind("https://said/base/", "said-key")
    assert (made.address.url, made.address.api_key) == ("https://said/base", "said-key")
    assert "said-key" not in repr(made.address)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://localhost:5555", "from-file"),
        ("http://127.1.2.3:1", "from-file"),
        ("http://[::1]:1", "from-file"),
        ("http://gyoza.example:5555", None),
        ("http://localhost.example", None),
    ],
)
def test_a_local_servers_key_is_used_for_that_server_only(
    tape: Tape, kind: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, key: str | None
) -> None:
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path))
    (tmp_path / "api-key").write_text("from-file\n")
    assert kind(url).address.api_key == key


def test_the_data_folder_is_the_one_that_is_named(tape: Tape, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path))
    assert data_dir() == tmp_path


def test_a_proxy_is_not_asked_for_this_host(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    with GyozaClient(tape.url) as client:
        assert client.get_run("r1") == {}


def test_the_modules_client_is_made_on_first_use(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", tape.url)
    monkeypatch.delitem(vars(gyoza.client), "gyoza_client", raising=False)
    first = gyoza.client.gyoza_client
    assert first.get_run("r1") == {}
    assert gyoza.client.gyoza_client is first
    monkeypatch.delitem(vars(gyoza.client), "gyoza_client")
    first.close()


async def test_run_waits_and_returns_the_outputs(client: Any, tape: Tape) -> None:
    tape.answer({"id": "r1", "state": "PENDING"}, 201)
    tape.answer({"id": "r1", "state": "RUNNING"})
    tape.answer({"id": "r1", "state": "COMPLETED", "outputs": {"n": 3}})
    assert await done(client.run("count", name="an input called name")) == {"n": 3}
    assert [asked[1] for asked in tape.asked] == ["/definitions/count/runs", *["/runs/r1/wait?timeout_s=25.0"] * 2]
    assert json.loads(tape.asked[0][3])["inputs"] == {"name": "an input called name"}


@pytest.mark.parametrize(("state", "expected"), [("FAILED", RunFailed), ("CANCELLED", RunCancelled)])
async def test_run_raises_what_became_of_it(client: Any, tape: Tape, state: str, expected: type[RunFailed]) -> None:
    ended = {"id": "r1", "state": state, "reason": "op_error", "execution_summary": {"error_message": "exit code 3"}}
    tape.answer(ended, 201)
    with pytest.raises(expected) as caught:
        await done(client.run("count"))
    assert type(caught.value) is expected
    assert str(caught.value) == f"Run r1 ended {state} (op_error): exit code 3"
    assert caught.value.run == ended


async def test_a_file_is_uploaded_by_its_path(client: Any, tape: Tape, tmp_path: Path) -> None:
    (tmp_path / "a cat.png").write_bytes(b"meow" * 1_000_000)
    tape.answer({"id": "f1"}, 201)
    assert await done(client.upload_file(tmp_path / "a cat.png")) == {"id": "f1"}
    method, target, headers, body = tape.asked[-1]
    assert (method, target) == ("POST", "/files?name=a+cat.png")
    assert (headers["content-type"], headers["content-length"]) == ("image/png", "4000000")
    assert hashlib.sha256(body).digest() == hashlib.sha256(b"meow" * 1_000_000).digest()


async def test_a_stream_is_uploaded_in_chunks(client: Any, tape: Tape) -> None:
    await done(client.upload_file(io.BytesIO(b"abc"), name="x.bin", media_type="text/plain"))
    _, target, headers, body = tape.asked[-1]
    assert (target, body, headers["content-type"]) == ("/files?name=x.bin", b"abc", "text/plain")
    assert headers["transfer-encoding"] == "chunked"


async def test_a_file_whose_name_is_no_text_is_uploaded_all_the_same(client: Any, tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.touch()
    await done(client.upload_file(path))
    assert tape.asked[-1][1] == "/files?name=caf%EF%BF%BD"


async def test_a_log_comes_as_its_bytes(client: Any, tape: Tape) -> None:
    tape.answers.append(Response(b"\xff\x00\r\n"))
    assert await done(client.get_logs("r1")) == b"\xff\x00\r\n"


async def test_an_empty_file_is_a_file(client: Any, tape: Tape, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    await done(client.upload_file(tmp_path / "empty"))
    assert tape.asked[-1][2]["content-length"] == "0"


async def test_a_download_lies_there_whole(client: Any, tape: Tape, tmp_path: Path) -> None:
    tape.answers.append(Response(b"x" * 3_000_000))
    path = await done(client.download_file("gyoza://files/f1", tmp_path / "out.bin"))
    assert tape.asked[-1][1] == "/files/f1"
    assert path.read_bytes() == b"x" * 3_000_000
    assert names(tmp_path) == ["out.bin"]


async def test_a_download_that_does_not_fit_its_hash_changes_nothing(client: Any, tape: Tape, tmp_path: Path) -> None:
    (tmp_path / "out.bin").write_bytes(b"before")
    tape.answers.append(Response(b"after"))
    with pytest.raises(DownloadBroken, match="download it again"):
        await done(client.download_file("f1", tmp_path / "out.bin", sha256="0" * 64))
    assert (tmp_path / "out.bin").read_bytes() == b"before"
    assert names(tmp_path) == ["out.bin"]


async def test_a_download_is_checked_against_what_the_server_kept(client: Any, tape: Tape, tmp_path: Path) -> None:
    tape.answers.append(Response(b"other", headers={"X-Gyoza-Sha256": hashlib.sha256(b"kept").hexdigest()}))
    with pytest.raises(DownloadBroken):
        await done(client.download_file("f1", tmp_path / "out.bin"))


async def test_a_download_of_an_unknown_file_leaves_nothing(client: Any, tape: Tape, tmp_path: Path) -> None:
    tape.answer({"detail": "File 'f1' not found", "code": "file_not_found"}, 404)
    with pytest.raises(NotFound, match="File 'f1' not found"):
        await done(client.download_file("f1", tmp_path / "out.bin"))
    assert names(tmp_path) == []


async def test_a_connection_that_breaks_in_a_download_leaves_nothing(tape: Tape, kind: Any, tmp_path: Path) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer_once, args=(listening, half))
        thread.start()
        client = kind(f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(GyozaUnreachable, match="broke off"):
            await done(client.download_file("f1", tmp_path / "out.bin"))
        await done(client.close())
        thread.join()
    assert names(tmp_path) == []


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def answer_once(listening: socket.socket, answer: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


def test_both_clients_have_the_same_methods_and_signatures(tape: Tape) -> None:
    for name in {name for name in vars(GyozaClient) if not name.startswith("_")} - {"send", "close"}:
        sync, other = getattr(GyozaClient, name), getattr(AsyncGyozaClient, name)
        assert inspect.signature(sync).parameters == inspect.signature(other).parameters, name
    assert list(inspect.signature(GyozaClient("http://localhost").get_run).parameters) == ["run_id"]
