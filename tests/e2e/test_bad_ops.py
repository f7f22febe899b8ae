"""Ops and requests that go wrong: each run ends, with its reason and a sentence; each command says what to do."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gyoza.client import NotFound

from .stage import Stage

NOBODY = "01890000-0000-7000-8000-000000000000"
SMALL = {"cpu": 0.1, "ram_mb": 64}
GREEDY = f"""exec {sys.executable} -c 'import time; hoard = b"x" * (300 * 2**20); time.sleep(60)'"""


@pytest.fixture(scope="module")
def working(served: Stage) -> Iterator[Stage]:
    worker = served.worker("w", "--drain-s", "0")
    yield served
    worker.end()


def writes(text: str) -> str:
    return f"""cat >"$GYOZA_IO_DIR/outputs.json" <<'EOF'\n{text}\nEOF"""


WRONG = [
    ("exits-3", "echo the last words >&2; exit 3", {}, "op_error", "3"),
    ("is-killed", "kill -9 $$", {}, "op_error", "signal 9"),
    (
        "explains",
        """echo '{"error_message": "no rice"}' >"$GYOZA_IO_DIR/error.json"; exit 1""",
        {},
        "op_error",
        "no rice",
    ),
    ("hoards", GREEDY, {}, "oom_killed", "constraints.ram_mb"),
    ("stays", "sleep 60", {"timeouts": {"run_s": 0.5}}, "run_timeout", "0.5 s"),
    ("broken", writes('{"y": '), {}, "invalid_output", "outputs.json"),
    ("not-a-number", writes('{"y": NaN}'), {}, "invalid_output", "outputs.json"),
    ("list", writes("[1]"), {}, "invalid_output", "outputs.json"),
    ("link", 'ln -s /etc/passwd "$GYOZA_IO_DIR/outputs.json"', {}, "invalid_output", "symbolic link"),
    ("fifo", 'mkfifo "$GYOZA_IO_DIR/outputs.json"', {}, "invalid_output", "not a regular file"),
    ("folder", 'mkdir "$GYOZA_IO_DIR/outputs.json"', {}, "invalid_output", "not a regular file"),
    (
        "too-much",
        """head -c 5000000 /dev/zero | tr '\\0' ' ' >"$GYOZA_IO_DIR/outputs.json\"""",
        {},
        "invalid_output",
        "larger",
    ),
    ("other-type", writes('{"y": "1"}'), {"outputs": {"y": "int"}}, "invalid_output", "y"),
    ("owes", ":", {"outputs": {"y": "int"}}, "invalid_output", "y"),
    ("owes-a-file", writes('{"f": "nowhere.txt"}'), {"outputs": {"f": "file"}}, "invalid_output", "nowhere.txt"),
    ("leaks", writes('{"f": "/etc/passwd"}'), {"outputs": {"f": "file"}}, "invalid_output", "/etc/passwd"),
    ("no-such-command", ":", {"command": ["no-such-command"]}, "bundle_broken", "no-such-command"),
]


@pytest.mark.parametrize(("name", "program", "more", "reason", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_an_op_that_goes_wrong_ends_failed_with_its_reason(
    working: Stage, name: str, program: str, more: dict[str, Any], reason: str, said: str
):
    run = working.ended(*working.submit(working.op(name, program, constraints=SMALL, **more)), within_s=20)
    assert (run["state"], run["reason"], run["current_attempt"]) == ("FAILED", reason, 1)
    assert said in run["execution_summary"]["error_message"]


def test_an_op_without_outputs_completes_with_none(working: Stage):
    run = working.ended(*working.submit(working.op("silent", ":", constraints=SMALL)))
    assert (run["state"], run["outputs"]) == ("COMPLETED", {})


def test_a_failed_attempt_is_followed_by_another_as_its_policy_says(working: Stage):
    op = working.op("thrice", 'exit "$GYOZA_ATTEMPT"', constraints=SMALL, retry_policy={"max_attempts": 3})
    run = working.ended(*working.submit(op))
    assert (run["state"], run["current_attempt"], run["user_failures"], run["infra_losses"]) == ("FAILED", 3, 3, 0)
    assert [attempt["execution_summary"]["exit_code"] for attempt in working.client.get_attempts(run["id"])] == [
        1,
        2,
        3,
    ]


def test_a_follower_of_a_failed_run_is_told_why_and_exits_1(working: Stage):
    op = working.op("fails", "exit 3", constraints=SMALL)
    run = working.run("run", op, "--follow")
    assert run.ends() == 1
    assert "ended FAILED (op_error)" in run.said.splitlines()[-1] and "3" in run.said.splitlines()[-1]


def test_an_image_alone_waits_for_a_docker_worker_and_can_be_cancelled(working: Stage):
    run = working.client.create_run("nowhere/nothing:latest", {})
    # Whatever is submitted later is placed: the scheduler has looked at both.
    assert working.ended(*working.submit(working.op("later", ":", constraints=SMALL)))["state"] == "COMPLETED"
    assert working.client.get_run(run["id"])["state"] == "PENDING"
    cancel = working.run("runs", "cancel", run["id"])
    assert cancel.ends() == 0, cancel.said
    assert working.client.get_run(run["id"])["state"] == "CANCELLED"


def test_requests_that_cannot_be_met_are_refused_in_one_line_each(typed: Stage):
    wrong = {
        ("run", "nosuch"): ["OpDefinition 'nosuch' not found"],
        ("runs", "show", NOBODY): [f"OpRun '{NOBODY}' not found"],
        ("runs", "cancel", "nonsense"): ["OpRun 'nonsense' not found"],
        ("run", "typed", "-i", "n=many"): ["n", "int"],
        ("run", "typed", "-i", "n=1", "-i", "m=2"): ["m"],
        ("run", "typed"): ["n"],
        ("run", "typed", "-i", "n=1", "-i", "file=@/nowhere/at-all"): ["/nowhere/at-all"],
        ("op", "deploy", "/nowhere"): ["/nowhere", "gyoza.yml"],
    }
    refused = [typed.run(*command) for command in wrong]
    for command, said in zip(refused, wrong.values(), strict=True):
        command.refuses(*said, code=2)


@pytest.fixture(scope="module")
def typed(served: Stage) -> Stage:
    optional = {"type": "file", "required": False}
    served.op("typed", ":", constraints=SMALL, inputs={"n": "int", "file": optional})
    return served


def test_an_input_without_a_value_is_wrong_usage(typed: Stage):
    run = typed.run("run", "typed", "-i", "n")
    assert run.ends() == 2
    assert "'n' is no input: write -i key=value" in run.said and "Traceback" not in run.said


def test_nothing_was_submitted_by_what_was_refused(typed: Stage):
    for inputs in ({"n": "1"}, {"n": True}, {}):
        with pytest.raises(Exception, match="Invalid inputs"):
            typed.client.create_run_from_definition("typed", inputs)
    with pytest.raises(NotFound):
        typed.client.create_run_from_definition("nosuch", {})
    assert typed.client.list_runs(op_definition="typed")["data"] == []
