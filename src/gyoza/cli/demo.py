"""`gyoza demo`: see it work, from nothing to nothing."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gyoza.models.errors import StartUpError

_OP = "thumbnails"
_INPUT = "landscape.jpg"

Out = Annotated[Path, typer.Option(metavar="DIR", help="Where the thumbnails are saved.")]


def demo(
    out: Out = Path("gyoza-demo"),
    runtime: Annotated[str, typer.Option(help="auto, docker or process")] = "auto",
) -> None:
    """Bring up a cluster in a temporary folder, deploy a sample op, run it on an image, take everything down."""
    from gyoza.cli.parts import server_parts

    code, folder = 1, out.absolute()

    async def run() -> None:
        nonlocal code
        code = await _demo(server_parts(), folder, runtime)

    server_parts().run(run())
    raise typer.Exit(code)


async def _demo(parts: Any, out: Path, runtime: str) -> int:
    from gyoza.cli.cluster import cluster

    stopping = asyncio.Event()
    await parts.stop_on_signals(stopping)
    with tempfile.TemporaryDirectory(prefix="gyoza-demo-", ignore_cleanup_errors=True) as folder:
        settings = parts.Settings.from_environment(
            _without_server(os.environ), data_dir=Path(folder), port=_free_port(), log_level="warning"
        )
        async with cluster(settings, stopping, runtime, typer.echo) as api_key:
            code = await _run_sample(settings.url, api_key, out, stopping)
        typer.echo("Everything is down again. Next: `gyoza up`, and the README's quickstart")
    return code


async def _run_sample(url: str, api_key: str, out: Path, stopping: asyncio.Event) -> int:
    """The steps of a user, each shown as the command that does it; ends early when the demo is told to stop."""
    steps = asyncio.create_task(_steps(url, api_key, out))
    halt = asyncio.create_task(stopping.wait())
    await asyncio.wait([steps, halt], return_when=asyncio.FIRST_COMPLETED)
    halt.cancel()
    if not steps.done():
        steps.cancel()
        await asyncio.wait([steps])
        return 130
    return steps.result()


async def _steps(url: str, api_key: str, out: Path) -> int:
    folder = sample()
    environ = {**_without_server(os.environ), "GYOZA_SERVER_URL": url, "GYOZA_API_KEY": api_key}
    image = folder / _INPUT
    deploy = ["op", "deploy", str(folder)]
    run = ["run", _OP, "-i", f"image=@{image}", "--follow", "--out", str(out)]
    for arguments in (deploy, run):
        typer.echo(f"\n$ gyoza {' '.join(arguments)}")
        if code := await _gyoza(arguments, environ):
            return code
    typer.echo(f"\nThe thumbnails of {image} are in {out}: open contact_sheet.png")
    return 0


async def _gyoza(arguments: list[str], environ: Mapping[str, str]) -> int:
    command = await asyncio.create_subprocess_exec(sys.executable, "-m", "gyoza.cli", *arguments, env=environ)
    try:
        return await command.wait()
    except asyncio.CancelledError:
        command.terminate()
        await command.wait()
        raise


def sample() -> Path:
    """The sample op: beside this module in an installation, in `examples` in a checkout."""
    here = Path(__file__).parent
    for folder in (here / _OP, here.parents[2] / "examples" / _OP):
        if (folder / "gyoza.yml").exists():
            return folder
    raise StartUpError("The sample op is not part of this installation: install gyoza from a release or a checkout")


def _without_server(environ: Mapping[str, str]) -> dict[str, str]:
    """The demo is a cluster of its own, whatever this shell is set up for."""
    ours = ("GYOZA_SERVER_URL", "GYOZA_API_KEY", "GYOZA_DATABASE_URL", "GYOZA_DATABASE_DIRECT_URL", "GYOZA_HOST")
    return {name: value for name, value in environ.items() if name not in ours}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
