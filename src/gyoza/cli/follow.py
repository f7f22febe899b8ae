"""A run on the terminal: its events as they come, above a bar that shows its progress."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gyoza.cli.output import note, plain
from gyoza.models.lifecycle import TRANSITIONS, EventType, OpRunState

if TYPE_CHECKING:
    from gyoza.client import GyozaClient

PATIENCE_S = 30.0
"""For how long a server may be away, say for a restart, before following ends."""
STATE_AFTER = {
    event: state for (_, event), state in TRANSITIONS.items() if event not in (EventType.INFO, EventType.ERROR)
}


def follow(client: "GyozaClient", run_id: str) -> dict[str, Any]:
    """Show the run's life until it has ended; the run as it is then."""
    after = None
    with Screen() as screen:
        while True:
            for event in events_of(client, run_id, after):
                screen.show(event)
                after = event["id"]
            run = client.get_run(run_id)
            if OpRunState(run["state"]).is_terminal:  # else somebody has retried it meanwhile
                return run


def events_of(client: "GyozaClient", run_id: str, after: int | None = None) -> Iterator[dict[str, Any]]:
    """The run's events above number `after` up to one that ends it; `state` is the run's state after each.

    The state is told by the events alone, so that no event is waited for that has been read already.
    """
    pause_s, state, more = 0.02, OpRunState.PENDING, True
    while more or not state.is_terminal:
        page = _patiently(client, run_id, after)
        for event in page["events"]:
            after, pause_s = event["id"], 0.02
            state = STATE_AFTER.get(event["type"], state)
            yield {**event, "state": state}
        more = bool(page.get("has_more"))
        if not (more or state.is_terminal):
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.5)


def _patiently(client: "GyozaClient", run_id: str, after: int | None) -> dict[str, Any]:
    """A page of events, from a server that may be restarting."""
    from gyoza.client import GyozaUnreachable

    give_up_at = None
    while True:
        try:
            return client.get_events(run_id, after)
        except GyozaUnreachable:
            now = time.monotonic()
            if give_up_at is None:
                note("The server does not answer; trying again ...")
                give_up_at = now + PATIENCE_S
            if now > give_up_at:
                raise
            time.sleep(0.5)


class Screen:
    """Lines on stderr; on a terminal, a bar under them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._live = console.is_terminal
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._live)
        self._task = self._bar.add_task(OpRunState.PENDING, total=100)

    def __enter__(self) -> "Screen":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "PROGRESS":
            self._bar.update(self._task, completed=int(event["msg"]))
        elif kind == "RETRIED":
            self._bar.update(self._task, completed=0)
        self._bar.update(self._task, description=event["state"], refresh=kind != "PROGRESS")
        if not (self._live and kind == "PROGRESS"):
            self._bar.console.print(line(event), markup=False, highlight=False, soft_wrap=True)


def line(event: dict[str, Any]) -> str:
    """`12:03:04  STARTED    w1`"""
    payload: dict[str, Any] = event.get("payload") or {}
    said = event["msg"] if event["msg"] not in (None, "") else _said_by(payload)
    percent = " %" if event["type"] == "PROGRESS" else ""
    return f"{event['t'][11:19]}  {event['type']:<9}  {plain(said)}{percent}".rstrip()


def _said_by(payload: dict[str, Any]) -> Any:
    return payload.get("error_message") or payload.get("reason") or payload.get("worker_id") or ""
