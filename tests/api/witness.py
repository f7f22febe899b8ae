"""Looks at a server after each step, and says where it shows another thing than the ledger, or than before."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from gyoza.models.lifecycle import TERMINAL, TRANSITIONS

from .actors import told
from .entry import Json, Run
from .ledger import Ledger

UPDATED = ("outputs", "priority", "queue_at", "updated_at", "execution_summary")
"""What may change of a run that is over: by an update, or by what its worker measured."""


class Witness:
    """`rows` is how each run was listed last, `stories` what its events were."""

    def __init__(self, api: httpx.AsyncClient, ledger: Ledger):
        self._api = api
        self._ledger = ledger
        self._rows: dict[str, Json] = {}
        self._stories: dict[str, list[Json]] = {}

    async def runs(self) -> None:
        """Of all runs what the list shows, and of those that changed their events."""
        rows = await self._get("/runs", limit=100)
        assert [row["id"] for row in rows["data"]] == list(reversed(self._ledger.runs))
        for row in rows["data"]:
            assert_shows(row, self._ledger.runs[row["id"]])
            before = self._rows.get(row["id"], row)
            assert_comes_from(before, row)
            if row["id"] not in self._rows or row != before:
                await self._run(row)
            self._rows[row["id"]] = row

    async def all_there_is(self) -> None:
        """Also of the attempts, and of what nothing has touched for long."""
        for row in self._rows.values():
            await self._run(row)
            await self._attempts(row)

    async def workers(self, now: datetime) -> None:
        """They hold what the ledger says, within the room that they have, and no run is on two of them."""
        shown, known = await self._get("/workers"), self._ledger.workers
        assert [each["id"] for each in shown] == [name for name, worker in known.items() if worker.is_known]
        for each in shown:
            worker = known[each["id"]]
            assert (each["state"], each["drain"]) == (worker.state(now), worker.drain)
            held = [(run.id, tried.number, tried.state) for run, tried in self._ledger.held(each["id"])]
            assert [tuple(each.values()) for each in each["holding"]] == held
            room = each["room"]["cpu"], each["room"]["slots"]
            assert room == self._ledger.free(each["id"])
            assert min(room) >= 0
        live = [held["run_id"] for each in shown for held in each["holding"] if held["state"] not in TERMINAL]
        assert len(live) == len(set(live))

    async def _run(self, row: Json) -> None:
        run = await self._get(f"/runs/{row['id']}")
        assert {**run, "events": []} == row
        await self._story(run)
        assert run["events"] == self._told_of(run["id"], run["current_attempt"])

    async def _story(self, run: Json) -> None:
        rows = (await self._get(f"/runs/{run['id']}/events"))["events"]
        story = [{name: value for name, value in row.items() if name != "state"} for row in rows]
        before = self._stories.setdefault(run["id"], [])
        assert story[: len(before)] == before
        assert [row["id"] for row in story] == list(range(len(story)))
        assert [(row["type"], row["attempt"]) for row in story] == self._ledger.runs[run["id"]].story
        assert [row["t"] for row in story] == sorted(row["t"] for row in story)
        assert_leads_to(run["state"], story)
        self._stories[run["id"]] = story

    async def _attempts(self, run: Json) -> None:
        tries, shown = self._ledger.runs[run["id"]].tries, await self._get(f"/runs/{run['id']}/attempts")
        assert [each["attempt"] for each in shown] == [tried.number for tried in tries]
        for each, tried in zip(shown, tries, strict=True):
            assert {name: each[name] for name in tried.shown()} == tried.shown()
            assert (each["settled_at"] is not None) == tried.settled
            assert each["events"] == self._told_of(run["id"], tried.number)

    def _told_of(self, run_id: str, attempt: int) -> list[Json]:
        return [row for row in self._stories[run_id] if row["attempt"] == attempt][-100:]

    async def _get(self, path: str, **query: Any) -> Any:
        return told(await self._api.get(path, params=query))


def assert_shows(shown: Json, run: Run) -> None:
    assert {name: shown[name] for name in run.shown()} == run.shown()


def assert_comes_from(before: Json, row: Json) -> None:
    """Attempts never fall; what is over is left by a new attempt alone, and COMPLETED never."""
    assert row["current_attempt"] >= before["current_attempt"]
    assert row["updated_at"] >= before["updated_at"]
    is_retried = row["current_attempt"] > before["current_attempt"]
    if before["state"] in TERMINAL and not is_retried:
        assert {**row, **{name: before[name] for name in UPDATED}} == before
    assert not (before["state"] == "COMPLETED" and is_retried)


def assert_leads_to(state: str, story: Sequence[Json]) -> None:
    """The events alone, by the table, lead to the state that is shown."""
    at: Any = "PENDING"
    for row in story:
        at = TRANSITIONS[at, row["type"]]
    assert at == state
