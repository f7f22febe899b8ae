"""`gyoza worker start`."""

import asyncio
import os
from typing import Annotated

import typer

app = typer.Typer(help="A worker on this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction] Typer registers it: `start` stays a command of its own
    pass


@app.command()
def start(
    name: Annotated[str | None, typer.Option(help="The worker's name", show_default="the host's")] = None,
    server_url: Annotated[str | None, typer.Option(help="The server", show_default="http://localhost:5555")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, docker or process", show_default="auto")] = None,
    tags: Annotated[str | None, typer.Option(help="Tags, separated by commas")] = None,
    cpu: Annotated[float | None, typer.Option(help="CPUs to give", show_default="all", min=0)] = None,
    ram_mb: Annotated[int | None, typer.Option(help="MB of memory to give", show_default="all", min=0)] = None,
    slots: Annotated[int | None, typer.Option(help="Runs at once", show_default="2 for each core", min=0)] = None,
    drain_s: Annotated[
        float | None, typer.Option(help="Seconds that runs may go on after SIGTERM", show_default="30", min=0)
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(help="Answer GET /health on this port of 127.0.0.1", show_default="none", min=1, max=65535),
    ] = None,
    log_level: Annotated[str, typer.Option(help="error, warning, info or debug", envvar="GYOZA_LOG_LEVEL")] = "warning",
) -> None:
    """Start a worker. It dials out to the server; nothing dials in. Its key comes from GYOZA_API_KEY."""
    from gyoza.cli.logs import log_at
    from gyoza.worker.process import work
    from gyoza.worker.settings import WorkerSettings

    settings = WorkerSettings.from_environment(
        os.environ,
        name=name,
        server_url=server_url,
        runtime=runtime,
        tags=tags,
        cpu=cpu,
        ram_mb=ram_mb,
        slots=slots,
        drain_s=drain_s,
        health_port=health_port,
    )
    log_at(log_level)
    asyncio.run(work(settings, typer.echo))
