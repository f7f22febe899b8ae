"""`gyoza up`: a whole cluster on this machine, until Ctrl-C."""

import asyncio
import os
from typing import Annotated, Any

import typer

DEFAULT_PORT = 5555


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on", show_default="5555", min=1, max=65535)] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, docker or process", show_default="auto")] = None,
    log_level: Annotated[str, typer.Option(help="error, warning, info or debug", envvar="GYOZA_LOG_LEVEL")] = "warning",
) -> None:
    """Run a whole cluster on this machine: server, database and one worker, named local. Ctrl-C takes it down."""
    from gyoza.cli.logs import log_at
    from gyoza.cli.parts import server_parts

    parts = server_parts()
    settings = parts.Settings.from_environment(os.environ, host=host, port=port, log_level=log_level)
    log_at(log_level)

    async def run() -> None:
        from gyoza.cli.cluster import cluster

        stopping = asyncio.Event()
        await parts.stop_on_signals(stopping)
        async with cluster(settings, stopping, runtime, typer.echo):
            if not stopping.is_set():
                _greet(settings)
            await stopping.wait()
            typer.echo("Going down")

    parts.run(run())


def _greet(settings: Any) -> None:
    typer.echo(f"Gyoza is up at {settings.url}; its data are in {settings.data_dir}. Ctrl-C takes it down.")
    if settings.port != DEFAULT_PORT:
        typer.echo(f"Elsewhere say: export GYOZA_SERVER_URL={settings.url}")
