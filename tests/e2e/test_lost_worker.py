"""Workers that are killed, frozen or doubled in the middle of runs: every run ends once, and as it should."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import played
from .stage import QUICKLY, Command, Gate, Stage, living_in, until

Hire = Callable[..., Command]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, made_data: Path) -> Iterator[Stage]:
    """As everywhere, but here lost workers are noticed soon."""
    for stage in played(Stage(tmp_path_factory.mktemp("served"), **QUICKLY), made_data):
        stage.server()
        yield stage


@pytest.fixture
def gate(served: Stage, request: pytest.FixtureRequest) -> Gate:
    return served.gated(request.node.name[:90])


def assert_lost_once(stage: Stage, run_id: str, outputs: object) -> None:
    """Completed by the second attempt, the first one lost to the infrastructure, at no cost to its user."""
    run = stage.ended(run_id)
    assert (run["state"], run["outputs"], run["current_attempt"]) == ("COMPLETED", outputs, 2), stage.story(run_id)
    assert (run["infra_losses"], run["user_failures"]) == (1, 0)
    assert stage.story(run_id)[-1] == "COMPLETED 2"
    assert [attempt["reason"] for attempt in stage.client.get_attempts(run_id)] == ["worker_lost", None]


def test_a_killed_worker_that_comes_back_ends_what_it_left_and_does_its_runs_anew(
    served: Stage, hire: Hire, gate: Gate
):
    worker = hire("once")
    run_ids = served.submit(gate.op, times=3)
    gate.started(*((run_id, 1) for run_id in run_ids))
    worker.kill()
    assert programs_of(served, attempt=1) == 3
    hire("once")
    until(lambda: programs_of(served, attempt=1) == 0, "what was left to be ended")
    gate.started(*((run_id, 2) for run_id in run_ids))
    gate.open()
    for run_id in run_ids:
        assert_lost_once(served, run_id, {"attempt": 2})


def test_the_runs_of_a_worker_that_never_comes_back_go_to_another_one(served: Stage, hire: Hire, gate: Gate):
    lost = hire("lost", "--slots", "2")
    run_ids = served.submit(gate.op, times=2)
    gate.started(*((run_id, 1) for run_id in run_ids))
    hire("other")
    lost.kill()
    gate.started(*((run_id, 2) for run_id in run_ids))
    gate.open()
    for run_id in run_ids:
        assert_lost_once(served, run_id, {"attempt": 2})
    until(lambda: programs_of(served, attempt=1) == 0, "the orphans end, since their gate is open")


def test_a_worker_that_was_frozen_for_longer_than_its_lease_changes_nothing_and_works_again(
    served: Stage, hire: Hire, gate: Gate
):
    frozen = hire("frozen")
    (run_id,) = served.submit(gate.op)
    gate.started((run_id, 1))
    frozen.send(signal.SIGSTOP)
    other = hire("awake")
    gate.started((run_id, 2))
    gate.open()
    assert_lost_once(served, run_id, {"attempt": 2})
    story = served.story(run_id)
    other.stop()
    frozen.send(signal.SIGCONT)
    (next_id,) = served.submit(gate.op)
    assert served.ended(next_id)["state"] == "COMPLETED"
    assert served.story(run_id) == story


def test_a_worker_that_was_frozen_goes_on_with_a_run_that_has_the_patience(served: Stage, hire: Hire, gate: Gate):
    definition = served.client.get_definition(gate.op)
    served.client.upsert_definition({**definition, "execution": {**definition["execution"], "server_lost_s": 600}})
    frozen = hire("patient")
    (run_id,) = served.submit(gate.op)
    gate.started((run_id, 1))
    served.reaches(run_id, "RUNNING")
    frozen.send(signal.SIGSTOP)
    until(lambda: served.client.get_worker("patient")["state"] == "lost", "its lease is over")
    until(lambda: "INFO 1" in served.story(run_id), "the run says that it waits")
    assert served.client.get_run(run_id)["state"] == "RUNNING"
    frozen.send(signal.SIGCONT)
    until(lambda: served.client.get_worker("patient")["state"] == "alive", "it is back")
    gate.open()
    run = served.ended(run_id)
    assert (run["state"], run["outputs"], run["current_attempt"]) == ("COMPLETED", {"attempt": 1}, 1)
    assert (run["infra_losses"], run["user_failures"]) == (0, 0)
    assert gate.arrivals() == [(run_id, 1)]
    moves = [each for each in served.story(run_id) if each != "INFO 1"]
    assert moves == ["ASSIGNED 1", "STARTED 1", "COMPLETED 1"]


def test_a_second_worker_of_the_same_folder_takes_over_and_the_first_one_exits_and_says_why(
    served: Stage, hire: Hire, gate: Gate
):
    first = hire("double")
    (run_id,) = served.submit(gate.op)
    gate.started((run_id, 1))
    hire("double")
    assert first.ends(10) == 1
    assert "A newer process has taken over worker 'double' on this host" in first.said.splitlines()[-1]
    assert "Traceback" not in first.said
    gate.started((run_id, 2))
    gate.open()
    assert_lost_once(served, run_id, {"attempt": 2})


def test_a_worker_of_another_host_that_wants_a_living_workers_name_is_refused(served: Stage, hire: Hire, gate: Gate):
    hire("taken")
    elsewhere = {
        "GYOZA_DATA_DIR": str(served.folder / "elsewhere"),
        "GYOZA_API_KEY": served.client.address.api_key or "",
    }
    refused = served.run("worker", "start", "--name", "taken", **elsewhere)
    refused.refuses("Worker name 'taken' is in use on another host", "--name")
    (run_id,) = served.submit(gate.op)
    gate.open()
    assert served.ended(run_id)["current_attempt"] == 1


def programs_of(stage: Stage, attempt: int) -> int:
    """How many programs of a run's attempt of this number live; each is a shell, which may have a child."""
    told = [process.info["environ"] or {} for process in living_in(stage.folder)]
    return len({env["GYOZA_RUN_ID"] for env in told if env.get("GYOZA_ATTEMPT") == str(attempt)})
