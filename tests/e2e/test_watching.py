"""Watching through real servers that are killed, freeze and start anew: each event once, in one order."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gyoza.client import GyozaClient

from .stage import CALM, Command, Stage, free_port, until

NOTES = 25


class Watcher(threading.Thread):
    """Takes so many events of all runs, through whatever happens to its server."""

    def __init__(self, client: GyozaClient, number: int):
        super().__init__(daemon=True)
        self.seen: list[dict[str, Any]] = []
        self._events = client.watch_all(after=0)
        self._number = number

    def run(self) -> None:
        for event in self._events:
            self.seen.append(event)
            if len(self.seen) == self._number:
                return


class Pair:
    """Two servers on one database. `first` leads at first."""

    def __init__(self, stage: Stage, database_url: str):
        stage.environ["GYOZA_DATABASE_URL"] = self._database_url = database_url
        self.stage = stage
        self.first = stage.server()
        until(lambda: self.leader_pid() == self.first.pid, "the first server leads")
        self.port = str(free_port())
        self.second = self.start_second()
        self.other = stage.client_of(f"http://127.0.0.1:{self.port}")

    def start_second(self) -> Command:
        return self.stage.server("--port", self.port)

    def leader_pid(self) -> int:
        with psycopg.connect(self._database_url) as connection:
            row = connection.execute("SELECT holder FROM leader").fetchone()
        return int(row[0].split(":")[1]) if row and row[0] else 0


@pytest.fixture
def pair(tmp_path: Path, database_url: str) -> Iterator[Pair]:
    stage = Stage(tmp_path, **CALM)
    try:
        yield Pair(stage, database_url)
    finally:
        left = stage.end()
    assert left == []


def note(client: GyozaClient, run_id: str, first: int) -> None:
    for n in range(first, first + NOTES):
        client.add_event(run_id, "INFO", str(n))


def test_no_event_is_missed_or_told_twice_when_the_leader_is_killed_freezes_or_starts_anew(pair: Pair):
    leader, other = pair.stage.client, pair.other
    run_id = other.create_run("image", {})["id"]
    watchers = [Watcher(other, 5 * NOTES) for _ in range(3)]
    for watcher in watchers:
        watcher.start()

    note(leader, run_id, 0)
    pair.first.kill()
    note(other, run_id, NOTES)
    until(lambda: pair.leader_pid() == pair.second.pid, "the second server leads")

    first = pair.stage.server()
    pair.second.send(signal.SIGSTOP)
    note(leader, run_id, 2 * NOTES)
    until(lambda: pair.leader_pid() == first.pid, "the first server leads again")
    pair.second.send(signal.SIGCONT)
    note(other, run_id, 3 * NOTES)

    pair.second.kill()
    note(leader, run_id, 4 * NOTES)
    second = pair.start_second()
    for watcher in watchers:
        watcher.join(30)
        assert [event["id"] for event in watcher.seen] == list(range(5 * NOTES))
        assert [event["msg"] for event in watcher.seen] == [str(n) for n in range(5 * NOTES)]
        assert watcher.seen == watchers[0].seen
    assert "Traceback" not in first.said + second.said


def test_a_run_is_watched_and_waited_for_while_its_server_starts_anew(pair: Pair):
    leader, other = pair.stage.client, pair.other
    run_id = leader.create_run("image", {})["id"]
    ended: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: ended.append(other.wait(run_id)), daemon=True)
    waiting.start()
    events = other.watch(run_id)
    leader.add_event(run_id, "STARTED", "")
    assert next(events)["type"] == "STARTED"
    assert pair.second.stop() == 0
    leader.add_event(run_id, "COMPLETED", "", {"outputs": {"y": 1}})
    pair.start_second()
    assert [(event["type"], event["state"]) for event in events] == [("COMPLETED", "COMPLETED")]
    waiting.join(30)
    assert ended[0]["outputs"] == {"y": 1}
