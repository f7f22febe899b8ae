"""A run on the terminal: its events and what it writes, as they come, above a bar that shows its progress."""

from types import TracebackType
from typing import TYPE_CHECKING, Any

from gyoza.cli.live import Live
from gyoza.cli.output import note, plain
from gyoza.models.lifecycle import OpRunState

if TYPE_CHECKING:
    from gyoza.client import GyozaClient


def follow(client: "GyozaClient", run_id: str) -> dict[str, Any]:
    """Show the run's life until it has ended; the run as it is then."""
    after = None
    with Screen() as screen:
        live = Live(client, run_id, screen.print)
        while True:
            for event in client.watch(run_id, after, lost=_say_lost):
                screen.show(event)
                after = event["id"]
                if event["type"] == "STARTED":
                    live.see(event["attempt"])
            run = client.get_run(run_id)
            if OpRunState(run["state"]).is_terminal:  # else somebody has retried it meanwhile
                live.finish()
                return run


def _say_lost(error: Exception) -> None:
    note("The server does not answer; trying again ...")


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
            self.print(line(event))

    def print(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def line(event: dict[str, Any]) -> str:
    """`12:03:04  STARTED    w1`"""
    payload: dict[str, Any] = event.get("payload") or {}
    said = event["msg"] if event["msg"] not in (None, "") else _said_by(payload)
    percent = " %" if event["type"] == "PROGRESS" else ""
    return f"{event['t'][11:19]}  {event['type']:<9}  {plain(said)}{percent}".rstrip()


def _said_by(payload: dict[str, Any]) -> Any:
    return payload.get("error_message") or payload.get("reason") or payload.get("worker_id") or ""
