"""Any history that a cluster can have, over HTTP, step by step beside a ledger that says what must have come of it.

They are the same histories each time, made in batches by number; `GYOZA_TEST_BATCHES=100` asks for more of them.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg.conninfo import make_conninfo

from control.stage import PACE, Cluster, Still
from gyoza.control.cluster import identity
from gyoza.models.lifecycle import TERMINAL
from gyoza.server.app import create_app
from gyoza.server.context import Context
from gyoza.server.filestore import FileStore, Folder
from gyoza.server.tail import Tail
from gyoza.store.bell import Bell
from gyoza.store.database import Database

from .conftest import KEY
from .course import Course
from .entry import EVENTS, Json
from .witness import Witness

BATCHES = int(os.environ.get("GYOZA_TEST_BATCHES", "6"))
BATCH = settings(
    max_examples=9,  # from the tenth on, Hypothesis varies those that it has instead of making new ones
    stateful_step_count=30,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TOO_MUCH = 8
"""CPUs that no worker has: what asks for them waits until somebody runs it without the scheduler."""

USUAL = ["STARTED", "PROGRESS", "COMPLETED with outputs", "FAILED by the op"]
NAMES = ("w1", "w2", "w3")

picks = st.integers(0, 15)
flags = st.booleans()
names = st.sampled_from(NAMES)
some = st.sets(names, min_size=1)
among = st.sampled_from
priorities = among([5, 5, 0, 9, -1000, 1000])
states = among(["PENDING", "RUNNING", *sorted(TERMINAL)])
events = among([*USUAL, *USUAL, *sorted(EVENTS)])
endings = among([*USUAL[1:], *USUAL[1:], *(event for event in EVENTS if event.startswith(("PROG", "COMP", "FAIL")))])
steps = st.lists(st.tuples(picks, endings, flags), min_size=1, max_size=4)
batches = st.lists(st.tuples(picks, events, flags, st.integers(0, 2)), min_size=2, max_size=4)
numbers = among([None, None, None, None, 1, 2])
limits = st.fixed_dictionaries(
    {
        "attempts": among([2, 1, 3]),
        "cpu": among([None, 0.5, 1, 2, TOO_MUCH]),
        "backoff_s": among([0, 0, 10]),
        "queue_s": among([None, None, 10]),
        "start_s": among([None, 5]),
        "run_s": among([None, 1]),
    }
)
updates = st.fixed_dictionaries(
    {},
    optional={
        "state": among(
            ["PENDING", "RUNNING", "COMPLETED", "FAILED", "FAILED", "FAILED", "CANCELLED", "ASSIGNED", "LOST"]
        ),
        "outputs": among([{}, {"z": 1}]),
        "priority": priorities,
    },
)
lately = among([0, 0, 1, 2])
hosts = among(["host-1", "host-1", "host-2"])
holdings = among(["all", "nothing", "one less", "others'"])

HAPPENINGS: list[tuple[int, str, dict[str, st.SearchStrategy[Any]]]] = [
    (6, "go_on", {"steps": steps}),
    (2, "submit", {"limits": limits, "priority": priorities, "delay_s": among([None, None, None, 10])}),
    (1, "submit_again", {"pick": picks, "other": flags}),
    (1, "deploy", {"limits": limits}),
    (1, "submit_of_definition", {"x": among([1, 2, 3, "one"]), "priority": priorities}),
    (1, "replay", {"pick": picks}),
    (3, "run_outside", {"pick": picks, "ending": endings}),
    (2, "tell", {"pick": picks, "event": events, "attempt": numbers}),
    (2, "cancel", {"pick": picks}),
    (2, "retry", {"pick": picks, "ended": flags}),
    (1, "sweep", {"word": among(["cancel", "retry"]), "state": states}),
    (3, "update", {"pick": picks, "going": flags, "wanted": updates}),
    (1, "turn_pages", {"limit": st.integers(1, 3), "state": st.none() | states}),
    (4, "pass_time", {"seconds": among([0.5, 6, 12, 21, 61]), "heard": some | among([(), NAMES])}),
    (4, "hand_out", {"to": some}),
    (2, "publish", {}),
    (3, "operate", {"name": names, "word": among(["drain", "drain", "resume", "resume", "remove"])}),
    (2, "beat", {"name": names, "holding": holdings, "late": lately}),
    (2, "restart", {"name": names, "host": hosts, "holding": holdings}),
    (1, "speak_although_superseded", {"pick": picks}),
    (2, "claim", {"name": names, "known": among(["all", "nothing"]), "most": among([0, 1, 10])}),
    (2, "report", {"pick": picks, "said": st.lists(events, max_size=3), "settled": flags, "declined": flags}),
    (2, "report_again", {"pick": picks, "said": st.lists(events, max_size=2), "behind": st.integers(0, 2)}),
    (2, "report_for_another", {"pick": picks, "by": names}),
    (2, "report_wrongly", {"pick": picks, "other": picks, "said": events, "attempt": among([None, None, 1, 2, 9])}),
    (2, "report_many", {"name": names, "said": batches}),
]
"""How often, what may come next, and how: methods of `Course`. The first is what Hypothesis takes for the simplest."""


def happenings() -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.one_of(
        st.tuples(st.just(what), st.fixed_dictionaries(how)) for often, what, how in HAPPENINGS for _ in range(often)
    )


class AnyHistory(RuleBasedStateMachine):
    """One rule, so that what comes next is chosen as often as the table says."""

    serving: tuple[asyncio.AbstractEventLoop, Cluster, Still, httpx.AsyncClient]

    @initialize(deployed=limits, runs=st.lists(limits, min_size=2, max_size=4))
    def begin(self, deployed: Json, runs: list[Json]):
        self.course = Course(*self.serving)
        self.witness = Witness(self.course.api, self.course.ledger)
        self.course.deploy(deployed)
        for each in runs:
            self.course.submit(each, 5, None)
        self.course.hand_out(NAMES)

    @rule(happening=happenings())
    def next(self, happening: tuple[str, dict[str, Any]]):
        what, how = happening
        self.course.later(0.01)  # nothing happens at the same moment as what went before
        getattr(self.course, what)(**how)

    @invariant()
    def runs_are_what_the_ledger_says(self):
        self.course.do(self.witness.runs())

    @invariant()
    def workers_are_what_the_ledger_says(self):
        self.course.do(self.witness.workers(self.course.now))

    def teardown(self) -> None:
        if sys.exc_info() == (None, None, None):  # what has failed already is not to be hidden by what follows from it
            self.course.publish()
            self.course.do(self.witness.all_there_is())


class InTurn(httpx.AsyncBaseTransport):
    """Two servers behind one address: whatever one of them keeps in mind must not show."""

    def __init__(self, *contexts: Context):
        apps = [create_app(context, KEY) for context in contexts]
        self._next = itertools.cycle([httpx.ASGITransport(app, raise_app_exceptions=False) for app in apps])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await next(self._next).handle_async_request(request)


@asynccontextmanager
async def served(url: str, clock: Still, folder: Path) -> AsyncGenerator[Context]:
    """Without loops of its own: the leader's turns are steps of a history."""
    async with Database(url, clock=clock) as database, Bell(url) as bell:
        yield Context(
            database=database,
            bell=bell,
            tail=Tail(database),
            files=FileStore(folder),
            shelf=Folder(folder),
            log_limit=2**20,
            pace=PACE,
            cluster_id=await identity(database),
        )


@asynccontextmanager
async def cluster(url: str, clock: Still, folder: Path) -> AsyncGenerator[tuple[Cluster, httpx.AsyncClient]]:
    async with served(url, clock, folder) as one, served(url, clock, folder) as two:
        address = {"base_url": "http://gyoza.test", "headers": {"X-API-Key": KEY}}
        async with httpx.AsyncClient(transport=InTurn(one, two), **address) as client:
            yield Cluster(one.database), client


@pytest.fixture(scope="module")
def history_url(postgres: str) -> str:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE history TEMPLATE template_gyoza")
    return make_conninfo(postgres, dbname="history")


@pytest.mark.timeout(600)  # a history that fails is made as short as can be, which takes time
@pytest.mark.parametrize("number", range(BATCHES))
def test_any_history_of_a_cluster_is_what_the_ledger_says(history_url: str, tmp_path: Path, number: int):
    loop, clock = asyncio.new_event_loop(), Still()
    serving = cluster(history_url, clock, tmp_path)
    led, api = loop.run_until_complete(serving.__aenter__())
    AnyHistory.serving = loop, led, clock, api
    try:
        run_state_machine_as_test(seed(number)(AnyHistory), settings=BATCH)
    finally:
        loop.run_until_complete(serving.__aexit__(None, None, None))
        loop.close()
