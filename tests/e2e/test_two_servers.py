"""Two servers on one database behave as one, also when one of them freezes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gyoza.client import GyozaClient

from .stage import CALM, Command, Stage, until
from .twins import Twins


class Pair(Twins):
    """Each with a worker that knows that one alone."""

    def __init__(self, stage: Stage, database_url: str):
        super().__init__(stage, database_url)
        self.through_other = stage.client_of(self.other_url)
        self.workers = [self._worker("one", stage.url), self._worker("two", self.other_url)]
        self._journal = stage.folder / "journal"
        self.op = stage.op("short", f'echo "$GYOZA_RUN_ID" >>{self._journal}', constraints={"cpu": 0.1, "ram_mb": 32})

    def _worker(self, name: str, url: str) -> Command:
        return self.stage.worker(name, "--drain-s", "0", "--server-url", url)

    def submit(self, times: int, *clients: GyozaClient) -> list[str]:
        return [self.stage.submit(self.op, client=clients[n % len(clients)])[0] for n in range(times)]

    def assert_each_ran_once(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            run = until(lambda run_id=run_id: ended(self.through_other, run_id), f"run {run_id} ends")
            assert (run["state"], run["current_attempt"]) == ("COMPLETED", 1), run
        assert sorted(self._journal.read_text().split()) == sorted(run_ids)


@pytest.fixture
def pair(tmp_path: Path, database_url: str) -> Iterator[Pair]:
    stage = Stage(tmp_path, **CALM)
    try:
        yield Pair(stage, database_url)
    finally:
        left = stage.end()
    assert left == []


def ended(client: GyozaClient, run_id: str) -> dict[str, object] | None:
    run = client.get_run(run_id)
    return run if run["state"] in ("COMPLETED", "FAILED", "CANCELLED") else None


def test_runs_submitted_through_both_run_once_each_on_workers_of_both(pair: Pair):
    run_ids = pair.submit(30, pair.stage.client, pair.through_other)
    pair.assert_each_ran_once(run_ids)
    workers = {pair.through_other.get_run(run_id)["execution_summary"]["worker_id"] for run_id in run_ids}
    assert workers == {"one", "two"}


def test_a_frozen_leader_is_replaced_and_does_no_harm_when_it_wakes(pair: Pair):
    pair.workers[0].stop()
    pair.leader.freeze()
    run_ids = pair.submit(10, pair.through_other)
    pair.assert_each_ran_once(run_ids)
    assert pair.leader_pid() != pair.leader.pid
    pair.leader.wake()
    run_ids += pair.submit(10, pair.stage.client, pair.through_other)
    pair.assert_each_ran_once(run_ids)
    assert pair.leader_pid() != pair.leader.pid
    assert "Traceback" not in pair.leader.said
