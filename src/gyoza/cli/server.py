"""`gyoza server start`."""

import asyncio
import os
from typing import Annotated

import typer

app = typer.Typer(help="The server.", no_args_is_help=True)


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction] Typer registers it: `start` stays a command of its own
    pass


@app.command()
def start(
    host: Annotated[str | None, typer.Option(help="Address to listen on", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on", show_default="5555", min=1, max=65535)] = None,
    workers: Annotated[
        int | None, typer.Option(help="How many server processes", show_default="1", min=1, max=256)
    ] = None,
    reload: Annotated[bool, typer.Option(help="Start anew when the code changes (for developers)")] = False,
    log_level: Annotated[
        str | None, typer.Option(help="critical, error, warning, info or debug", show_default="info")
    ] = None,
    database_url: Annotated[str | None, typer.Option(help="PostgreSQL", show_default="an embedded one")] = None,
) -> None:
    """Start a server. Without a database URL it runs its own PostgreSQL in the data folder."""
    from gyoza.cli.logs import log_at
    from gyoza.cli.parts import server_parts

    parts = server_parts()
    settings = parts.Settings.from_environment(
        os.environ, host=host, port=port, workers=workers, log_level=log_level, database_url=database_url
    )
    log_at(settings.log_level)

    async def run() -> None:
        stopping = asyncio.Event()
        await parts.stop_on_signals(stopping)
        await parts.serve(
            settings, stopping, say=typer.echo, ready=lambda: typer.echo(f"Gyoza serves {settings.url}"), reload=reload
        )

    parts.run(run())
