"""`gyoza`: the table of commands, and the one place where errors become a line and an exit code.

Exit codes: 0 done (of a run: COMPLETED), 1 a run FAILED or a process could not start, 2 wrong usage or refused by
the server, 3 a run was CANCELLED, 4 no server answers or it failed, 130 Ctrl-C.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from gyoza.models.errors import GyozaError, StartUpError


class Command(NamedTuple):
    """`target` is `module:attribute`: a Typer app, or the function of a single command. Loaded when called."""

    target: str
    help: str


COMMANDS: Mapping[str, Command] = {
    "up": Command("gyoza.cli.up:up", "Run a whole cluster on this machine: server, database, one worker."),
    "demo": Command("gyoza.cli.demo:demo", "See it work: a cluster, a sample op, one run, and all is gone again."),
    "run": Command("gyoza.cli.run:run", "Run an op; follow it with --follow."),
    "runs": Command("gyoza.cli.runs:app", "List, inspect, follow, cancel, retry, replay and pin runs."),
    "op": Command("gyoza.cli.op:app", "From a folder to an op on the server."),
    "definitions": Command("gyoza.cli.definitions:app", "List, inspect, disable and remove deployed ops."),
    "workers": Command("gyoza.cli.workers:app", "List, inspect, drain, resume and remove workers."),
    "files": Command("gyoza.cli.files:app", "Put files on the server and get them back."),
    "keys": Command("gyoza.cli.keys:app", "Make, list and revoke API keys."),
    "server": Command("gyoza.cli.server:app", "Start a server."),
    "worker": Command("gyoza.cli.worker:app", "Start a worker on this machine."),
    "db": Command("gyoza.cli.db:app", "Look after the database."),
}


class Root(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(COMMANDS[name]) if name else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GyozaError as error:
            raise _ended(str(error), exit_code(error)) from error
        except OSError as error:
            if error.filename is None:
                raise
            raise _ended(f"{error.filename}: {error.strerror}", 2) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error


def load(command: Command) -> Any:
    """What is behind a line of the table, ready to be called."""
    module, attribute = command.target.split(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.help = group.help or command.help
        return group
    single = typer.Typer(add_completion=False)
    single.command()(found)
    return get_command(single)


def exit_code(error: GyozaError) -> int:
    from gyoza.client.errors import GyozaUnreachable, ServerFailed

    if isinstance(error, GyozaUnreachable | ServerFailed):
        return 4
    return 1 if isinstance(error, StartUpError) else 2


def _ended(text: str, code: int) -> typer.Exit:
    """Exit with one line on stderr."""
    typer.echo(f"gyoza: {' '.join(text.split())}", err=True)
    return typer.Exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gyoza {version('gyoza')}")
        raise typer.Exit


app = typer.Typer(cls=Root, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def gyoza(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run containerised functions on your own machines: JSON in, JSON out, nothing lost."""


def _listed() -> None:
    """Stands in the help for a command that is not loaded."""


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.help)(_listed)


def main() -> None:
    sys.exit(app())
