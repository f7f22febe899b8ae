"""`gyoza worker`: start one here, or see what it would give."""

import asyncio
import os
from typing import Annotated, Any

import typer

from gyoza.cli.output import Format, details, json_text, table

app = typer.Typer(help="A worker on this machine.", no_args_is_help=True)

COLUMNS = ("ID", "NAME", "VRAM MB", "USED MB", "UUID")
FIELDS = ("id", "name", "vram_mb", "used_mb", "uuid")


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


@app.command()
def probe(
    output: Annotated[Format, typer.Option("-o", "--output", help="table or json")] = Format.table,
    runtime: Annotated[str | None, typer.Option(help="auto, docker or process", show_default="auto")] = None,
    cpu: Annotated[float | None, typer.Option(help="CPUs to give", show_default="all", min=0)] = None,
    ram_mb: Annotated[int | None, typer.Option(help="MB of memory to give", show_default="all", min=0)] = None,
    slots: Annotated[int | None, typer.Option(help="Runs at once", show_default="2 for each core", min=0)] = None,
) -> None:
    """Print what a worker on this machine would give, and why; asks no server."""
    from gyoza.worker.settings import WorkerSettings
    from gyoza.worker.survey import survey

    settings = WorkerSettings.from_environment(os.environ, runtime=runtime, cpu=cpu, ram_mb=ram_mb, slots=slots)
    found = asyncio.run(survey(settings))
    if output is Format.json:
        typer.echo(json_text(found, indent=2))
    else:
        _draw(found)


def _draw(found: dict[str, Any]) -> None:
    because, disk, engine, gpus = (found[name] for name in ("because", "disk", "engine", "gpus"))
    details(
        {
            **{name: f"{found[name]} ({why})" for name, why in because.items()},
            "disk": f"{disk['free_mb']} of {disk['total_mb']} MB are free in {disk['folder']}",
            "engine": f"{engine['name'] or 'none'} ({engine['because']})",
            "gpus": f"none ({found['no_gpus']})" if found["no_gpus"] else len(gpus),
            **{f"gpu {gpu_id}": f"lost ({why})" for gpu_id, why in found["lost_gpus"].items()},
        }
    )
    if gpus:
        typer.echo()
        table(COLUMNS, [[gpu[name] for name in FIELDS] for gpu in gpus])
