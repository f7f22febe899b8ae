"""`gyoza up`: a whole cluster, and its end within five seconds, whatever is open."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from gyoza.client import calls

from .stage import Stage, living_in

WATCHER = {
    "instance": "watcher-1",
    "seq": 1,
    "host_id": "elsewhere",
    "resources": {"cpu": 1, "ram_mb": 0, "slots": 0, "gpus": []},
    "tags": [],
    "engines": ["process"],
    "version": "0",
    "images": [],
    "holding": [],
}


def test_from_an_empty_folder_to_a_run_by_the_commands_of_the_readme(empty_stage: Stage):
    up = empty_stage.up()
    op = empty_stage.folder / "hello"
    op.mkdir()
    (op / "gyoza.yml").write_text("name: hello\nentry: hello:hello\n")
    (op / "hello.py").write_text(
        "from gyoza.op import op, progress\n\n\n@op\ndef hello(name: str) -> dict:\n"
        "    progress(50)\n    return {'greeting': f'Hello {name}'}\n"
    )
    deploy = empty_stage.run("op", "deploy", str(op))
    assert deploy.ends() == 0, deploy.said
    run = empty_stage.run("run", "hello", "-i", "name=you", "--follow")
    assert run.ends() == 0, run.said
    assert "PROGRESS" in run.said and '"greeting": "Hello you"' in run.said
    assert up.stop() == 0, up.said


def test_ctrl_c_while_it_comes_up_takes_it_down(empty_stage: Stage):
    up = empty_stage.run("up")
    up.says("Making a database")
    assert up.stop(signal.SIGINT) == 0, up.said
    assert "is up" not in up.said and "Traceback" not in up.said
    assert living_in(empty_stage.folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_five_seconds_with_a_run_a_long_poll_and_a_follower_open(stage: Stage, number: int):
    up = stage.up()
    gate = stage.gated()
    (run_id,) = stage.submit(gate.op)
    gate.started((run_id, 1))
    follower = stage.run("runs", "events", run_id, "--follow")
    follower.says("STARTED")
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(_long_poll, stage)
        assert up.stop(number, within_s=5) == 0, up.said
        assert polling.result(timeout=5)["assignments"] == []
    assert "Traceback" not in up.said
    assert [process.pid for process in living_in(stage.folder)] == [follower.pid]
    follower.kill()


def test_a_run_that_was_interrupted_goes_on_at_the_next_start_has_lost_nothing_and_is_still_followed(stage: Stage):
    up = stage.up()
    gate = stage.gated()
    follower = stage.run("run", gate.op, "--follow")
    follower.says("STARTED")
    (run_id,) = [run["id"] for run in stage.client.list_runs()["data"]]
    gate.started((run_id, 1))
    assert up.stop() == 0
    stage.up()
    gate.started((run_id, 2))
    gate.open()
    assert follower.ends() == 0, follower.said
    assert '{\n  "attempt": 2\n}' in follower.said
    run = stage.client.get_run(run_id)
    assert (run["state"], run["user_failures"], run["infra_losses"]) == ("COMPLETED", 0, 0)
    assert stage.story(run_id)[:4] == ["ASSIGNED 1", "STARTED 1", "FAILED 1", "RETRIED 2"]
    assert gate.arrivals() == [(run_id, 1), (run_id, 2)]


def test_data_survive_kill_9_of_the_server_with_all_that_hangs_on_it(stage: Stage):
    up = stage.up()
    gate = stage.gated()
    (run_id,) = stage.submit(gate.op)
    gate.started((run_id, 1))
    up.kill()
    stage.up()
    gate.open()
    run = stage.ended(run_id)
    assert run["state"] == "COMPLETED", stage.client.get_events(run_id)
    assert (run["user_failures"], run["infra_losses"]) == (0, run["current_attempt"] - 1)
    stage.story(run_id)


def test_a_worker_that_is_killed_is_started_anew(stage: Stage):
    up = stage.up()
    gate = stage.gated()
    (run_id,) = stage.submit(gate.op)
    gate.started((run_id, 1))
    (worker,) = [child for child in psutil.Process(up.pid).children() if "worker" in child.cmdline()]
    worker.kill()
    gate.started((run_id, 2))
    gate.open()
    run = stage.ended(run_id)
    assert (run["state"], run["infra_losses"], run["user_failures"]) == ("COMPLETED", 1, 0)
    assert "starting it anew" in up.said


def _long_poll(stage: Stage) -> dict[str, object]:
    """A worker of another host asks for work, and the server holds its answer back."""
    client = stage.client_of(stage.url)
    client.send(calls.register_worker("watcher", WATCHER))
    asked = time.monotonic()
    answer = client.send(calls.claim("watcher", {"instance": "watcher-1", "known": [], "max": 1, "wait_s": 25}))
    assert time.monotonic() - asked > 0.05
    return answer
