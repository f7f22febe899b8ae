"""The nouns of the command line, and how everything ends that goes wrong."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gyoza.cli.app import COMMANDS

Gyoza = Callable[..., Any]
RUN_ID = "01980000-0000-7000-8000-000000000001"


def test_runs_are_listed(little: Any, gyoza: Gyoza) -> None:
    little.has_more = True
    little.run |= {"state": "RUNNING", "progress": 40}
    little.run["execution_summary"]["worker_id"] = "w1"
    result = gyoza("runs", "ls", "--state", "running", "--op", "count", "--limit", "1")
    assert result.exit_code == 0
    assert result.stdout == (
        "ID                                    STATE    REASON  OP     PROGRESS  ATTEMPT  WORKER  CREATED (UTC)\n"
        "01980000-0000-7000-8000-000000000001  RUNNING  -       count  40 %      1        w1      2026-03-01 12:00:00\n"
    )
    assert result.stderr == f"More: gyoza runs ls --state RUNNING --op count --limit 1 --starting-after {RUN_ID}\n"
    assert little.asked == {"limit": "1", "state": "RUNNING", "op_definition": "count"}


def test_a_run_is_shown(little: Any, gyoza: Gyoza) -> None:
    little.run |= {"state": "FAILED", "reason": "op_error", "inputs": {"text": "a\x1b[31m"}}
    little.run["execution_summary"] |= {"error_message": "exit\ncode 3", "duration_ms": 1500}
    assert gyoza("runs", "show", RUN_ID).stdout == (
        f"id             {RUN_ID}\n"
        "state          FAILED\n"
        "reason         op_error\n"
        "error          exit code 3\n"
        "op             count\n"
        "progress       0 %\n"
        "priority       5\n"
        "attempt        1\n"
        "duration       1.500 s\n"
        "created (UTC)  2026-03-01 12:00:00\n"
        "updated (UTC)  2026-03-01 12:00:01\n"
        'inputs         {"text": "a\\u001b[31m"}\n'
    )


def test_events_are_printed(little: Any, gyoza: Gyoza) -> None:
    little.step({"type": "STARTED", "payload": {"worker_id": "w1"}})
    little.step({"type": "INFO", "msg": "hello"})
    assert gyoza("runs", "events", RUN_ID).stdout == "   0  12:00:00  STARTED    w1\n   1  12:00:01  INFO       hello\n"
    assert gyoza("runs", "events", RUN_ID, "--after", "0").stdout == "   1  12:00:01  INFO       hello\n"


def test_a_run_can_be_followed_later(little: Any, gyoza: Gyoza) -> None:
    little.script = [{"type": "COMPLETED", "run": {"state": "COMPLETED", "outputs": {"n": 1}}}]
    result = gyoza("runs", "events", RUN_ID, "--follow")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"n": 1})


def test_a_log_is_printed_byte_for_byte(little: Any, gyoza: Gyoza) -> None:
    little.logs = [b"\x1b[31mred\xff\r\n"]
    result = gyoza("runs", "logs", RUN_ID, "--attempt", "1", "--offset", "3")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"\x1b[31mred\xff\r\n", "")
    assert little.asked == {"attempt": "1", "offset": "3"}


def test_a_log_is_followed_to_its_end(little: Any, gyoza: Gyoza) -> None:
    little.logs = [b"one\n", b"two\n", b"three"]
    result = gyoza("runs", "logs", RUN_ID, "--follow")
    assert (result.exit_code, result.stdout_bytes) == (0, b"one\ntwo\nthree")
    assert little.asked == {"attempt": "1", "offset": "8", "follow": "true"}


def test_the_log_of_an_unknown_run_is_refused(little: Any, gyoza: Gyoza) -> None:
    for more in ((), ("--follow",)):
        result = gyoza("runs", "logs", "nope", *more)
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", "gyoza: OpRun 'nope' not found\n")


def test_runs_are_listed_by_every_filter_and_the_next_page_is_asked_for_with_them(little: Any, gyoza: Gyoza) -> None:
    little.has_more = True
    filters = ("--image", "img", "--tag", "a b", "--tag", "c", "--reason", "op_error", "--worker", "w1", "--by", "me")
    result = gyoza("runs", "ls", *filters)
    assert little.query == "limit=10&image=img&tag=a+b&tag=c&reason=op_error&worker_id=w1&submitted_by=me"
    again = "--image img --tag 'a b' --tag c --reason op_error --worker w1 --by me"
    assert result.stderr == f"More: gyoza runs ls {again} --starting-after {RUN_ID}\n"


def test_a_page_back_leads_further_back(little: Any, gyoza: Gyoza) -> None:
    little.has_more = True
    result = gyoza("runs", "ls", "--ending-before", "r9")
    assert result.stderr == f"More: gyoza runs ls --ending-before {RUN_ID}\n"
    little.has_more = False
    assert gyoza("runs", "ls").stderr == ""


def test_a_run_shows_what_was_asked_for(little: Any, gyoza: Gyoza) -> None:
    little.run |= {"tags": ["a", "b"], "submitted_by": "me", "replay_of": "r0", "pinned": True}
    little.run |= {"run_at": "2030-01-01T00:00:00.000000+00:00", "reason": "cancelled", "state": "CANCELLED"}
    shown = gyoza("runs", "show", RUN_ID).stdout
    for line in ("tags              a, b", "submitted by      me", "replay of         r0", "pinned            yes"):
        assert f"{line}\n" in shown
    assert "not before (UTC)  2030-01-01 00:00:00\n" in shown
    assert "CANCELLED  cancelled  count" in gyoza("runs", "ls").stdout


def test_a_run_is_replayed(little: Any, gyoza: Gyoza) -> None:
    result = gyoza("runs", "replay", RUN_ID)
    assert (result.stdout, little.asked, little.run["replay_of"]) == (f"{RUN_ID}\n", {}, RUN_ID)
    gyoza("runs", "replay", RUN_ID, "--priority", "0", "--tag", "a", "--tag", "b", "--run-at", "2030-01-01T00:00+01:00")
    assert datetime.fromisoformat(little.asked.pop("run_at")) == datetime(2029, 12, 31, 23, tzinfo=UTC)
    assert little.asked == {"priority": 0, "tags": ["a", "b"]}
    little.script = [{"type": "COMPLETED", "run": {"state": "COMPLETED", "outputs": {"n": 1}}}]
    followed = gyoza("runs", "replay", RUN_ID, "--follow")
    assert (followed.exit_code, json.loads(followed.stdout)) == (0, {"n": 1})


def test_a_run_is_pinned_and_let_go(little: Any, gyoza: Gyoza) -> None:
    assert gyoza("runs", "pin", RUN_ID).stdout == f"{RUN_ID}  pinned\n"
    assert little.asked == {"pinned": True}
    assert gyoza("runs", "pin", RUN_ID, "--off").stdout == f"{RUN_ID}  not pinned\n"


@pytest.mark.parametrize(("verb", "done"), [("cancel", "cancelled"), ("retry", "retried")])
def test_many_runs_are_changed_once_somebody_has_agreed(little: Any, gyoza: Gyoza, verb: str, done: str) -> None:
    for answer in ("y\n", "YES\n"):
        little.swept.clear()
        result = gyoza("runs", verb, "--tag", "a", "--state", "failed", stdin=answer)
        assert (result.exit_code, result.stdout) == (0, f"3 {done}\n")
        assert result.stderr == f"This will {verb} 3 runs. Go on? [y/N] "
        assert little.swept == [f"/runs/{verb}?state=FAILED&tag=a&dry_run=true", f"/runs/{verb}?state=FAILED&tag=a"]


@pytest.mark.parametrize("answer", ["n\n", "\n", "perhaps\n"])
def test_nothing_is_changed_when_nobody_agrees(little: Any, gyoza: Gyoza, answer: str) -> None:
    result = gyoza("runs", "cancel", "--op", "count", stdin=answer)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.endswith("Nothing was changed.\n")
    assert little.swept == ["/runs/cancel?op_definition=count&dry_run=true"]


def test_where_nobody_can_agree_nothing_is_changed_and_that_is_an_error(little: Any, gyoza: Gyoza) -> None:
    result = gyoza("runs", "cancel", "--tag", "a", stdin="")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--yes" in result.stderr
    assert little.swept == ["/runs/cancel?tag=a&dry_run=true"]


def test_with_yes_nobody_is_asked(little: Any, gyoza: Gyoza) -> None:
    little.changed, little.has_more = 1, True
    result = gyoza("runs", "retry", "--reason", "op_error", "--worker", "w1", "--by", "me", "--image", "i", "--yes")
    assert little.swept == ["/runs/retry?image=i&reason=op_error&worker_id=w1&submitted_by=me"]
    assert result.stdout == "1 retried\n"
    assert result.stderr == "2 had gone on by themselves meanwhile.\nThere are more: say it again.\n"


def test_a_dry_run_only_counts(little: Any, gyoza: Gyoza) -> None:
    result = gyoza("runs", "cancel", "--tag", "a", "--dry-run")
    assert (result.stdout, result.stderr) == ("3 runs would be cancelled\n", "")
    little.matched, little.has_more = 1, True
    assert gyoza("runs", "retry", "--tag", "a", "--dry-run").stdout == "1 run and more would be retried\n"
    assert {asked.partition("?")[2] for asked in little.swept} == {"tag=a&dry_run=true"}


def test_where_none_is_found_nobody_is_asked(little: Any, gyoza: Gyoza) -> None:
    little.matched = 0
    result = gyoza("runs", "cancel", "--tag", "a", stdin="")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "0 runs would be cancelled\n", "")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize("words", [(), ("--yes",), ("--dry-run",), (RUN_ID, "--tag", "a"), (RUN_ID, "--dry-run")])
def test_either_one_run_is_named_or_some_are_found(
    little: Any, gyoza: Gyoza, verb: str, words: tuple[str, ...]
) -> None:
    result = gyoza("runs", verb, *words)
    assert result.exit_code == 2
    assert "RUN_ID" in result.stderr
    assert (little.swept, little.run["state"]) == ([], "PENDING")


def test_an_op_is_disabled_enabled_and_removed(little: Any, count: Any, gyoza: Gyoza) -> None:
    assert gyoza("definitions", "disable", "count").stdout == "count  disabled\n"
    assert gyoza("definitions", "enable", "count").stdout == "count  enabled\n"
    assert gyoza("definitions", "rm", "count").stderr == "removed count\n"
    assert gyoza("workers", "rm", "w1").stderr == "removed w1\n"
    assert little.removed == ["/definitions/count", "/workers/w1"]
    count["disabled"] = True
    assert "disabled      yes\n" in gyoza("definitions", "show", "count").stdout


def test_a_run_is_cancelled(little: Any, gyoza: Gyoza) -> None:
    assert gyoza("runs", "cancel", RUN_ID).stdout == f"{RUN_ID}  CANCELLED\n"


def test_definitions_are_listed_and_shown(little: Any, count: Any, gyoza: Gyoza) -> None:
    count["input_specs"] = {
        "text": {"type": "string", "required": True, "default": None},
        "size": {"type": "int", "required": False, "default": 3},
        "mask": {"type": "file", "required": False, "default": None},
    }
    assert gyoza("definitions", "ls").stdout == (
        "NAME   VERSION  REVISION  INPUTS            DESCRIPTION\ncount  1.0      3         text, size, mask  Counts.\n"
    )
    assert gyoza("definitions", "show", "count").stdout == (
        "name          count\n"
        "version       1.0\n"
        "revision      3\n"
        "digest        sha256:abc\n"
        "description   Counts.\n"
        "image         img\n"
        "max attempts  1\n"
        "cpu           2\n"
        "tags          demo\n"
        "input text    string\n"
        "input size    int, default 3\n"
        "input mask    file, optional\n"
        "output n      int\n"
    )


def test_workers_are_listed_and_drained(little: Any, gyoza: Gyoza) -> None:
    gpu = {"id": 0, "uuid": "u", "name": "H100", "vram_mb": 80000, "foreign_mb": 0}
    resources = {"cpu": 8, "ram_mb": 16000, "slots": 16, "gpus": [gpu]}
    seen = "2026-03-01T12:00:00.000000+00:00"
    common = {"resources": resources, "tags": ["eu"], "seen_at": seen}
    doubt = {"since": seen, "until": seen, "cause": "broken", "reason": "All of it broke", "canaries": 2}
    little.workers = [
        {"id": "w1", **common, "drain": True, "quarantine": doubt, "state": "alive"},
        {"id": "w2", **common, "drain": False, "quarantine": doubt, "state": "alive"},
        {"id": "w3", **common, "drain": False, "quarantine": doubt, "state": "lost"},
        {"id": "w4", **common, "drain": False, "quarantine": None, "state": "alive"},
    ]
    assert gyoza("workers", "ls").stdout == (
        "NAME  STATE        CPU  RAM MB  SLOTS  GPUS  TAGS  LAST SEEN (UTC)\n"
        "w1    draining     8    16000   16     H100  eu    2026-03-01 12:00:00\n"
        "w2    quarantined  8    16000   16     H100  eu    2026-03-01 12:00:00\n"
        "w3    lost         8    16000   16     H100  eu    2026-03-01 12:00:00\n"
        "w4    alive        8    16000   16     H100  eu    2026-03-01 12:00:00\n"
    )
    assert gyoza("workers", "drain", "w1").stdout == "id     w1\ndrain  True\n"
    assert gyoza("workers", "resume", "w1").stdout == "id     w1\ndrain  False\n"


def test_a_file_goes_there_and_back(little: Any, gyoza: Gyoza, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    assert gyoza("files", "put", "a.txt", "--name", "b.txt").stdout == "gyoza://files/f1\n"
    stored = json.loads(gyoza("files", "put", "a.txt", "-o", "json").stdout)
    assert (stored["name"], stored["size"]) == ("a.txt", 5)
    assert gyoza("files", "get", "gyoza://files/f1", "c.txt").stderr == "saved c.txt\n"
    assert (tmp_path / "c.txt").read_text() == "hello"


def test_a_folder_is_deployed_once(little: Any, gyoza: Gyoza, tmp_path: Path) -> None:
    (tmp_path / "gyoza.yml").write_text("name: shout\ncommand: [./shout.sh]\ninputs: {text: {type: string}}\n")
    (tmp_path / "shout.sh").write_text("#!/bin/sh\n")
    first = gyoza("op", "deploy")
    assert first.exit_code == 0, first.output
    assert first.stdout == "name      shout\nrevision  1\ndigest    sha256:abc\n"
    assert first.stderr == "deployed\n"
    bundle = little.definitions["shout"]["bundle"]
    assert bundle["uri"] == "gyoza://files/f1"
    assert bundle["digest"] == f"sha256:{little.files['f1'][0]['sha256']}"
    little.files.clear()
    assert gyoza("op", "deploy", str(tmp_path)).stderr == "it was there already: nothing has changed\n"


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "ls"),
        ("runs", "show", RUN_ID),
        ("runs", "events", RUN_ID),
        ("runs", "cancel", RUN_ID),
        ("runs", "cancel", "--tag", "a", "--yes"),
        ("runs", "retry", "--tag", "a", "--dry-run"),
        ("runs", "replay", RUN_ID),
        ("runs", "pin", RUN_ID),
        ("definitions", "ls"),
        ("definitions", "disable", "count"),
        ("definitions", "show", "count"),
        ("workers", "ls"),
        ("workers", "drain", "w1"),
        ("run", "count"),
    ],
)
def test_json_is_what_the_server_wrote(little: Any, count: Any, gyoza: Gyoza, command: tuple[str, ...]) -> None:
    result = gyoza(*command, "-o", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    text = result.stdout.rstrip("\n")
    assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("runs", "show", "nope"), "gyoza: OpRun 'nope' not found"),
        (("runs", "retry", RUN_ID), f"gyoza: OpRun '{RUN_ID}' is COMPLETED: it cannot be retried"),
        (("run", "nope"), "gyoza: OpDefinition 'nope' not found"),
        (("run", "count", "-i", "refuse=1"), "gyoza: Invalid inputs: 'refuse' is not an input of this op"),
        (("run", "count", "-i", "file=@nowhere.png"), "gyoza: nowhere.png: No such file or directory"),
        (("run", "count", "--inputs-json", "nowhere"), "gyoza: nowhere: No such file or directory"),
        (("files", "put", "/"), "gyoza: /: Is a directory"),
        (("files", "get", "f9", "x"), "gyoza: File 'f9' not found"),
        (
            ("runs", "ls", "--server-url", "here"),
            "gyoza: 'here' is not the URL of a server: write it like http://localhost:5555",
        ),
    ],
)
def test_a_refusal_is_one_line_and_2(
    little: Any, count: Any, gyoza: Gyoza, command: tuple[str, ...], line: str
) -> None:
    result = gyoza(*command)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", line + "\n")


@pytest.mark.parametrize(
    "command",
    [
        ("run", "count", "-i", "nothing"),
        ("run", "count", "-i", "=5"),
        ("run", "count", "-i", "file=cat.png"),
        ("run", "count", "--inputs-json", "-"),
        ("run",),
        ("runs", "dance"),
        ("dance",),
        ("runs", "ls", "-o", "xml"),
        ("runs", "ls", "--limit", "many"),
    ],
)
def test_wrong_usage_ends_with_2(little: Any, count: Any, gyoza: Gyoza, command: tuple[str, ...]) -> None:
    result = gyoza(*command, stdin="[1, 2]")
    assert result.exit_code == 2
    assert "Error" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_key_is_one_line(little: Any, gyoza: Gyoza) -> None:
    result = gyoza("runs", "ls", "--api-key", "wrong")
    assert result.exit_code == 2
    assert result.stderr == (
        f"gyoza: The Gyoza server at {little.url} does not accept this API key: check --api-key / GYOZA_API_KEY\n"
    )


def test_a_wrong_key_is_told_before_a_large_file_is_sent(little: Any, gyoza: Gyoza, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)
    result = gyoza("files", "put", "large", "--api-key", "wrong")
    assert result.exit_code == 2
    assert "does not accept this API key" in result.stderr


def test_a_dead_server_is_one_line_and_4(little: Any, gyoza: Gyoza) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    result = gyoza("runs", "ls", "--server-url", url)
    assert result.exit_code == 4
    assert result.stderr == (
        f"gyoza: No Gyoza server answers at {url}: start one with `gyoza up`, "
        "or point --server-url / GYOZA_SERVER_URL at yours\n"
    )


def test_a_local_servers_key_is_found(
    little: Any, gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GYOZA_API_KEY")
    assert gyoza("runs", "ls").exit_code == 2
    monkeypatch.setenv("GYOZA_DATA_DIR", str(tmp_path))
    (tmp_path / "api-key").write_text("right-key\n")
    assert gyoza("runs", "ls").exit_code == 0


def test_help_names_every_command(gyoza: Gyoza) -> None:
    result = gyoza("--help")
    assert result.exit_code == 0
    assert all(f" {name} " in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("args", [("--help",), ("run", "--help"), ("runs", "ls", "--help"), ("op", "--help")])
def test_help_loads_neither_client_nor_server(args: tuple[str, ...]) -> None:
    program = (
        "import sys; sys.argv[0] = 'gyoza'\n"
        "from gyoza.cli.app import app\n"
        "try: app()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('loaded', [name for name in ('httpx', 'fastapi', 'psycopg', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_the_version_is_printed(gyoza: Gyoza) -> None:
    assert gyoza("--version").stdout.startswith("gyoza ")
