"""`gyoza db migrate`."""

import asyncio
import os
from typing import Annotated

import typer

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction] Typer registers it: `migrate` stays a command of its own
    pass


@app.command()
def migrate(
    database_url: Annotated[str | None, typer.Option(help="PostgreSQL", show_default="the embedded one")] = None,
) -> None:
    """Bring the database to the shape that this version needs. A starting server does the same."""
    from gyoza.cli.parts import server_parts

    parts = server_parts()
    settings = parts.Settings.from_environment(os.environ, database_url=database_url)

    async def run() -> None:
        async with parts.database(settings, typer.echo) as url:
            typer.echo(f"The database is at step {parts.migrate(settings.direct_url or url)}")

    asyncio.run(run())
