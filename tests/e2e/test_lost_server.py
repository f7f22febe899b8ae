"""Servers and databases that are killed or frozen in the middle of runs: runs go on, and every report arrives once."""

import os
import signal
import time

import psutil

from .stage import Stage, until

LEASE_S = 4.0
LINES = 30


def talks(stage: Stage) -> str:
    """An op that goes on telling things for some seconds, numbered; then it waits for nothing."""
    program = (
        f"n=0; while [ $n -lt {LINES} ]; do "
        'echo "{\\"type\\": \\"INFO\\", \\"msg\\": \\"$n\\"}" >>"$GYOZA_IO_DIR/events.ndjson"; '
        "n=$((n + 1)); sleep 0.2; done"
    )
    return stage.op("talks", program)


def assert_heard_once(stage: Stage, run_id: str) -> None:
    """By its first attempt, every line once, in order."""
    run = stage.ended(run_id)
    assert (run["state"], run["current_attempt"], run["infra_losses"]) == ("COMPLETED", 1, 0), stage.story(run_id)
    assert stage.story(run_id) == ["ASSIGNED 1", "STARTED 1", *["INFO 1"] * LINES, "COMPLETED 1"]
    said = [event["msg"] for event in stage.client.get_events(run_id)["events"] if event["type"] == "INFO"]
    assert said == [str(n) for n in range(LINES)]


def test_runs_go_on_while_a_killed_server_is_away_for_longer_than_a_lease(stage: Stage):
    stage.environ["GYOZA_LEASE_S"] = str(LEASE_S)
    server = stage.server()
    stage.worker("w")
    (run_id,) = stage.submit(talks(stage))
    stage.reaches(run_id, "RUNNING")
    server.kill()
    away_until = time.monotonic() + LEASE_S
    until(lambda: time.monotonic() > away_until, "the lease would have run out")
    stage.server()
    assert_heard_once(stage, run_id)


def test_a_killed_postgresql_is_healed_and_runs_go_on(stage: Stage):
    stage.environ["GYOZA_LEASE_S"] = str(LEASE_S)
    up = stage.up()
    (run_id,) = stage.submit(talks(stage))
    stage.reaches(run_id, "RUNNING")
    os.kill(stage.postmaster(), signal.SIGKILL)
    up.says("PostgreSQL answers again")
    assert_heard_once(stage, run_id)
    (next_id,) = stage.submit(stage.op("quick", ":"))
    assert stage.ended(next_id)["state"] == "COMPLETED"
    assert "Traceback" not in up.said


def test_a_server_of_several_processes_replaces_one_that_is_killed_and_they_all_end_with_their_parent(stage: Stage):
    server = stage.server("--workers", "2")
    stage.worker("w")
    quick = stage.op("quick", ":", constraints={"cpu": 0.1, "ram_mb": 32})
    before = until(lambda: children(server.pid, 2), "two processes serve")
    os.kill(min(before), signal.SIGKILL)
    until(lambda: set(children(server.pid, 2)) - set(before), "a new one takes the place of the killed one")
    for run_id in stage.submit(quick, times=4):
        assert stage.ended(run_id)["state"] == "COMPLETED"
    serving = children(server.pid, 2)
    server.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in serving), "they end with their parent")
    stage.server("--workers", "2")
    assert until(lambda: stage.client.list_runs(), "it answers")["data"]


def children(pid: int, number: int) -> list[int]:
    """The server processes of this server, once they are so many."""
    found = psutil.Process(pid).children()
    living = [child.pid for child in found if child.status() != psutil.STATUS_ZOMBIE and child.name() != "postgres"]
    return living if len(living) == number else []
