"""`gyoza workers`: the machines that run attempts."""

from typing import Annotated, Any

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.output import Format, details, moment, note, show, table

app = typer.Typer(no_args_is_help=True)

WorkerId = Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.", show_default=False)]
COLUMNS = ("NAME", "STATE", "CPU", "RAM MB", "SLOTS", "GPUS", "TAGS", "LAST SEEN (UTC)")


@app.command()
def ls(output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """List workers, the lost ones too."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.list_workers(), output, lambda found: table(COLUMNS, map(_row, found)))


@app.command("show")
def show_worker(
    worker_id: WorkerId, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None
) -> None:
    """Show what a worker offers and what it holds."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.get_worker(worker_id), output, details)


@app.command()
def drain(
    worker_id: WorkerId, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None
) -> None:
    """Give a worker nothing new; what it runs, it may finish."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.drain_worker(worker_id), output, details)


@app.command()
def resume(
    worker_id: WorkerId, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None
) -> None:
    """Let a worker that was drained, or is in quarantine, take runs again."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.resume_worker(worker_id), output, details)


@app.command()
def rm(worker_id: WorkerId, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """Forget a worker; what it still holds is lost to it. If it lives, it comes back by itself."""
    with connect(server_url, api_key) as client:
        client.remove_worker(worker_id)
    note(f"removed {worker_id}")


def _row(worker: dict[str, Any]) -> tuple[Any, ...]:
    resources: dict[str, Any] = worker["resources"]
    gpus: list[dict[str, Any]] = resources.get("gpus") or []
    return (
        worker["id"],
        _state(worker),
        resources["cpu"],
        resources["ram_mb"],
        resources["slots"],
        ", ".join(str(gpu.get("name") or gpu["id"]) for gpu in gpus) or "-",
        ", ".join(worker["tags"]) or "-",
        moment(worker["seen_at"]),
    )


def _state(worker: dict[str, Any]) -> str:
    """For one that lives, what keeps runs from it."""
    kept_by = "draining" if worker["drain"] else "quarantined" if worker.get("quarantine") else None
    return kept_by if kept_by and worker["state"] == "alive" else worker["state"]
