"""`gyoza run` and what it shows, against a server that really listens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gyoza.cli.follow import follow
from gyoza.client import GyozaClient

Gyoza = Callable[..., Any]
SSE = {"Content-Type": "text/event-stream"}
RUN_ID = "01980000-0000-7000-8000-000000000001"

ASSIGNED = {"type": "ASSIGNED", "payload": {"worker_id": "w1"}, "run": {"state": "ASSIGNED"}}
STARTED = {"type": "STARTED", "payload": {"worker_id": "w1"}, "run": {"state": "RUNNING"}}
HALFWAY = {"type": "PROGRESS", "msg": 50}
SAID = {"type": "INFO", "msg": "[bold]half\x1b[2J of it[/bold]"}
COMPLETED = {"type": "COMPLETED", "run": {"state": "COMPLETED", "outputs": {"n": 3, "text": "é"}}}
FAILED = {
    "type": "FAILED",
    "payload": {"error_message": "exit code 3"},
    "run": {
        "state": "FAILED",
        "reason": "op_error",
        "execution_summary": {"error_message": "exit code 3", "worker_id": "w1", "duration_ms": 5},
    },
}
CANCELLED = {"type": "CANCELLED", "msg": "Cancelled by user", "run": {"state": "CANCELLED", "reason": "cancelled"}}


def script(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return json.loads(json.dumps(events))


def test_a_run_is_submitted_and_named(little: Any, count: Any, gyoza: Gyoza) -> None:
    result = gyoza("run", "count", "--priority", "7", "--version", "1.0")
    assert (result.exit_code, result.stdout) == (0, f"{RUN_ID}\n")
    assert result.stderr == f"PENDING. Follow it: gyoza runs events {RUN_ID} --follow\n"
    assert little.asked == {"inputs": {}, "priority": 7, "version": "1.0"}


def test_a_run_is_tagged_delayed_and_asked_for_once(little: Any, count: Any, gyoza: Gyoza) -> None:
    options = ("--tag", "a", "--tag", "b", "--run-at", "2030-01-01T00:00Z", "--idempotency-key", "k")
    assert gyoza("run", "count", *options).exit_code == 0
    assert datetime.fromisoformat(little.asked.pop("run_at")) == datetime(2030, 1, 1, tzinfo=UTC)
    assert (little.asked, little.key) == ({"inputs": {}, "priority": 5, "tags": ["a", "b"]}, "k")


def test_a_time_without_an_offset_is_by_this_machine_s_clock(
    little: Any, count: Any, gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    try:
        assert gyoza("run", "count", "--run-at", "2030-07-01 12:00").exit_code == 0
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert datetime.fromisoformat(little.asked["run_at"]) == datetime(2030, 7, 1, 16, tzinfo=UTC)


@pytest.mark.parametrize("wrong", ["tomorrow", "", "12:00", "2030-13-01"])
def test_what_is_no_time_is_refused(little: Any, count: Any, gyoza: Gyoza, wrong: str) -> None:
    result = gyoza("run", "count", "--run-at", wrong)
    assert result.exit_code == 2
    assert "--run-at" in result.stderr
    assert little.asked == {}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("string=5", "5"),
        ("string=@home", "@home"),
        ("string=a=b", "a=b"),
        ("string=", ""),
        ("int=5", 5),
        ("int=five", "five"),
        ("float=1e3", 1000.0),
        ("float=NaN", "NaN"),
        ("bool=true", True),
        ("list=[1, 2]", [1, 2]),
        ('dict={"a": null}', {"a": None}),
        ("any=hello", "hello"),
        ('any="5"', "5"),
        ("file=gyoza://files/f9", "gyoza://files/f9"),
        ("unknown=@nowhere", "@nowhere"),
    ],
)
def test_a_value_is_read_by_its_spec(little: Any, count: Any, gyoza: Gyoza, given: str, sent: Any) -> None:
    assert gyoza("run", "count", "-i", given).exit_code == 0
    assert little.asked["inputs"] == {given.partition("=")[0]: sent}


@pytest.mark.parametrize("name", ["file", "any"])
def test_a_file_is_uploaded_and_its_uri_passed(
    little: Any, count: Any, gyoza: Gyoza, tmp_path: Path, name: str
) -> None:
    (tmp_path / "cat.png").write_bytes(b"meow")
    assert gyoza("run", "count", "-i", f"{name}=@cat.png").exit_code == 0
    assert little.asked["inputs"] == {name: "gyoza://files/f1"}
    assert little.files["f1"][0]["name"] == "cat.png"
    assert little.files["f1"][0]["media_type"] == "image/png"


def test_inputs_come_from_a_document_and_single_ones_go_over_it(
    little: Any, count: Any, gyoza: Gyoza, tmp_path: Path
) -> None:
    (tmp_path / "inputs.json").write_text('{"int": 1, "string": "a"}')
    assert gyoza("run", "count", "--inputs-json", "inputs.json", "-i", "int=2").exit_code == 0
    assert little.asked["inputs"] == {"int": 2, "string": "a"}
    assert gyoza("run", "count", "--inputs-json", "-", stdin='{"int": 9}').exit_code == 0
    assert little.asked["inputs"] == {"int": 9}


def test_following_shows_the_life_and_prints_the_outputs(little: Any, count: Any, gyoza: Gyoza) -> None:
    little.script = script(ASSIGNED, STARTED, HALFWAY, SAID, COMPLETED)
    result = gyoza("run", "count", "--follow")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"n": 3, "text": "é"}
    assert "é" in result.stdout
    assert result.stderr.splitlines() == [
        f"Run {RUN_ID}",
        "12:00:00  ASSIGNED   w1",
        "12:00:01  STARTED    w1",
        "12:00:02  PROGRESS   50 %",
        "12:00:03  INFO       [bold]half�[2J of it[/bold]",
        "12:00:04  COMPLETED",
    ]


def test_following_shows_what_the_op_writes_as_a_terminal_would(little: Any, count: Any, gyoza: Gyoza) -> None:
    little.logs = [b"one\nlong l", b"ine\n10%\r", b"99%\r\n\x1b[31m[bold]\xff\n", b"the end"]
    little.script = script(STARTED, COMPLETED)
    result = gyoza("run", "count", "--follow")
    assert json.loads(result.stdout) == {"n": 3, "text": "é"}
    shown = [line for line in result.stderr.splitlines() if " | " in line]
    assert shown == [
        "          | one",
        "          | long line",
        "          | 99%",
        "          | \ufffd[31m[bold]\ufffd",
        "          | the end",
    ]


def test_on_a_terminal_there_is_a_bar_under_the_lines(
    little: Any, count: Any, gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    little.script = script(ASSIGNED, STARTED, HALFWAY, SAID, COMPLETED)
    result = gyoza("run", "count", "--follow")
    assert result.exit_code == 0
    assert "12:00:03  INFO" in result.stderr
    assert "PROGRESS" not in result.stderr
    assert "RUNNING" in result.stderr


def test_a_failed_run_says_why_and_ends_with_1(little: Any, count: Any, gyoza: Gyoza) -> None:
    little.script = script(ASSIGNED, STARTED, FAILED)
    result = gyoza("run", "count", "--follow")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-2:] == [
        "12:00:02  FAILED     exit code 3",
        f"gyoza: Run {RUN_ID} ended FAILED (op_error): exit code 3",
    ]


def test_a_cancelled_run_ends_with_3(little: Any, count: Any, gyoza: Gyoza) -> None:
    little.script = script(CANCELLED)
    assert gyoza("run", "count", "--follow").exit_code == 3


def test_a_retried_run_is_followed_into_its_next_attempt(little: Any, count: Any, gyoza: Gyoza) -> None:
    again = {"type": "RETRIED", "payload": {"reason": "worker_lost"}, "run": {"state": "PENDING"}}
    little.script = script(STARTED, {**FAILED, "run": {}}, again, STARTED, COMPLETED)
    result = gyoza("run", "count", "--follow")
    assert result.exit_code == 0
    assert "12:00:02  RETRIED    worker_lost" in result.stderr


def test_json_prints_the_run_as_the_server_wrote_it(little: Any, count: Any, gyoza: Gyoza) -> None:
    little.script = script(STARTED, COMPLETED)
    result = gyoza("run", "count", "--follow", "-o", "json")
    assert result.stdout == json.dumps(little.run, ensure_ascii=False, separators=(",", ":")) + "\n"
    little.script = script(FAILED)
    failed = gyoza("run", "count", "--follow", "-o", "json")
    assert (failed.exit_code, json.loads(failed.stdout)["state"]) == (1, "FAILED")


def test_out_saves_every_file_that_the_outputs_name(little: Any, count: Any, gyoza: Gyoza, tmp_path: Path) -> None:
    names = ["a.png", "../../a.png", ".."]
    stored = [{"uri": f"gyoza://files/f{n}", "name": name, "size": 1} for n, name in enumerate(names)]
    little.files = {f"f{n}": ({}, f"content {n}".encode()) for n in range(3)}
    outputs = {"one": stored[0], "more": {"deep": stored[1:]}, "again": stored[0], "n": 3}
    little.script = script(STARTED, {**COMPLETED, "run": {"state": "COMPLETED", "outputs": outputs}})
    result = gyoza("run", "count", "--out", "saved/here")
    assert result.exit_code == 0
    found = {path.name: path.read_text() for path in (tmp_path / "saved" / "here").iterdir()}
    assert found == {"a.png": "content 0", "a-2.png": "content 1", "f2": "content 2"}
    assert result.stderr.splitlines()[-3:] == [
        "saved saved/here/a.png",
        "saved saved/here/a-2.png",
        "saved saved/here/f2",
    ]


def test_a_server_that_restarts_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    def told(number: int, event: dict[str, Any]) -> httpx.Response:
        row = {"id": number, "t": "2026-03-01T12:00:00.000000+00:00", "msg": "", "payload": None, "attempt": 1, **event}
        row |= {"state": row.pop("run")["state"]}
        return httpx.Response(200, headers=SSE, text=f"id: {number}\ndata: {json.dumps(row)}\n\n")

    answers: list[httpx.Response | Exception] = [
        told(0, STARTED),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.Response(503, json={"code": "database_unavailable"}),
        told(1, COMPLETED),
        httpx.Response(204),
        httpx.Response(200, json={"id": RUN_ID, "state": "COMPLETED"}),
    ]
    asked: list[str | None] = []

    def play(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            return httpx.Response(404, json={"code": "run_not_found"}, request=request)
        asked.append(request.headers.get("Last-Event-ID"))
        answer = answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    with GyozaClient("http://localhost:1", transport=httpx.MockTransport(play)) as client:
        assert follow(client, RUN_ID)["state"] == "COMPLETED"
    assert asked == [None, "0", "0", "0", "0", "1", None]
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in said] == ["STARTED", "server", "COMPLETED"]
    assert said[1] == "The server does not answer; trying again ..."


def test_ctrl_c_leaves_the_run_alone_and_says_how_to_go_on(little: Any, count: Any) -> None:
    little.script = script(ASSIGNED, STARTED)
    command = [sys.executable, "-m", "gyoza.cli", "run", "count", "--follow"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr is not None
        while "STARTED" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines() == [
        "",
        f"Run {RUN_ID} goes on. Follow it: gyoza runs events {RUN_ID} --follow",
        f"Cancel it: gyoza runs cancel {RUN_ID}",
    ]
    assert little.run["state"] == "RUNNING"
