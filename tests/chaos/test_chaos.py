"""A whole cluster, in which everything fails at random while it works; then its recorded history must be without fault.

Short, unless GYOZA_CHAOS_MINUTES says for how long faults are to happen. GYOZA_CHAOS_SEED plays a schedule again.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from e2e.stage import until

from .acts import ACTS
from .crowd import Crowd
from .faults import Fault, schedule
from .history import WITNESS, History, is_over, processes_of, read
from .invariants import broken, figures
from .ops import deploy
from .scene import SERVERS, Scene

BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")
MINUTES = float(os.environ.get("GYOZA_CHAOS_MINUTES") or 0.4)
SEED = int(os.environ.get("GYOZA_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
RUNS_A_MINUTE = 90
LOOKED_S = 90.0
"""Within this time a worker has looked for what it left behind: it does so every minute."""
PEACE_S = 240.0
"""Within this time after the last fault every run must have ended, on a machine that may have a lot else to do."""


@pytest.fixture
def scene(tmp_path: Path, database_url: str) -> Iterator[Scene]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(WITNESS)
    scene = Scene(tmp_path, database_url, BASE_IMAGE)
    try:
        if scene.no_docker and os.environ.get("GYOZA_REQUIRE_DOCKER") == "1":
            pytest.fail(f"Docker is required (GYOZA_REQUIRE_DOCKER=1). {scene.no_docker}")
        scene.start()
        yield scene
    finally:
        left = scene.take_down()
    assert left == []
    assert scene.folders() == []


def play(scene: Scene, faults: list[Fault], length_s: float) -> None:
    """Each fault at its time, and its end at its own."""
    agenda = [(fault.at_s, fault, 0) for fault in faults] + [(fault.at_s + fault.for_s, fault, 1) for fault in faults]
    began = time.monotonic()
    for at_s, fault, part in sorted(agenda, key=lambda entry: (entry[0], entry[2])):
        while time.monotonic() - began < at_s:
            scene.tend()
            time.sleep(0.05)
        ACTS[fault.kind][part](scene, fault.target)
    while time.monotonic() - began < length_s:
        scene.tend()
        time.sleep(0.05)


def in_peace(scene: Scene) -> None:
    """Nothing fails any more; until every run has ended."""
    for name in scene.workers:
        scene.ask("resume_worker", name)

    def look() -> bool:
        scene.tend()
        return is_over(scene.database_url)

    until(look, "every run has ended and is settled", PEACE_S)


def recorded(scene: Scene, crowd: Crowd, faults: list[Fault]) -> History:
    client = scene.client(SERVERS[0], timeout_s=60)
    try:
        until(lambda: all(not worker["holding"] for worker in client.list_workers()), "no worker holds anything")
        left = left_at_last(scene, set(crowd.run_ids))
        return read(client, scene.database_url, left=left, deeds=crowd.deeds, faults=faults)
    finally:
        client.close()


def left_at_last(scene: Scene, run_ids: set[str]) -> list[str]:
    """What workers have not removed, though each has looked for leftovers once more."""
    last = time.monotonic() + LOOKED_S
    while left := [*scene.containers(), *processes_of(lambda run_id: run_id in run_ids), *scene.folders()]:
        if time.monotonic() > last:
            return left
        time.sleep(0.5)
    return []


@pytest.mark.timeout(MINUTES * 60 + PEACE_S + LOOKED_S + 300)
def test_a_cluster_keeps_its_promises_whatever_fails(scene: Scene):
    began, length_s = time.monotonic(), MINUTES * 60
    faults = schedule(SEED, length_s, scene.targets)
    print(f"\nGYOZA_CHAOS_SEED={SEED} GYOZA_CHAOS_MINUTES={MINUTES:g}", *faults, sep="\n")
    with scene.client(SERVERS[0]) as client:
        deploy(client)
    crowd = Crowd(lambda: [scene.client(name) for name in SERVERS], SEED, round(RUNS_A_MINUTE * MINUTES) + 10)
    crowd.begin()
    try:
        play(scene, faults, length_s)
    finally:
        crowd.end()
    in_peace(scene)
    history = recorded(scene, crowd, faults)
    print(figures(history, time.monotonic() - began))
    complaints = broken(history)
    assert not complaints, "\n".join([*complaints, *(f"--- {words}\n{said}" for words, said in scene.said() if said)])
